"""Power sensors of this device: what there is to read, and reading it while a benchmark's process runs.

It knows no meter. The host looks at what `sensors` found, and says which of these files to read and how often; what
the readings mean is the host's business, and so is every joule.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

from .wire import Json

# Every place where the kernel shows power, energy, or what these mean.
SENSOR_FILES = (
    "class/hwmon/hwmon*/name",
    "class/hwmon/hwmon*/label",
    "class/hwmon/hwmon*/power1_input",
    "class/hwmon/hwmon*/curr[1-3]_input",
    "class/hwmon/hwmon*/in[1-3]_input",
    "class/hwmon/hwmon*/in[1-3]_label",
    "class/hwmon/hwmon*/shunt*_resistor",
    "class/hwmon/hwmon*/update_interval",
    "class/powercap/*/name",
    "class/powercap/*/energy_uj",
    "class/powercap/*/max_energy_range_uj",
    "class/power_supply/*/type",
    "class/power_supply/*/online",
    "class/power_supply/*/status",
    "class/power_supply/*/current_now",
    "class/power_supply/*/voltage_now",
    "class/power_supply/*/power_now",
    "bus/iio/devices/*/energy_value",
)
# Commands by name, because nothing the host sends is ever executed.
COMMANDS = {"pmic_read_adc": ("vcgencmd", "pmic_read_adc")}

MAX_TEXT_BYTES = 3_000_000  # of all readings in one reply, beside up to 4 MB of latencies
# A command costs processor time; at most this share of one processor may be the meter's.
MAX_COMMAND_SHARE = 0.2
_COMMAND_TIMEOUT_S = 2.0


def sensors(sys: str = "/sys", path: str = "") -> dict[str, str]:
    """Every sensor file and what it says now, and every command's answer under `command:NAME`; empty: unreadable."""
    found = {}
    for pattern in SENSOR_FILES:
        for file in sorted(Path(sys).glob(pattern)):
            try:
                found[str(file)] = file.read_text(encoding="ascii", errors="replace").strip()
            except OSError:  # the kernel's own energy counters are root's
                found[str(file)] = ""
    for name in COMMANDS:
        if text := run_command(name):
            found["command:" + name] = text
    return found


def run_command(name: str) -> str:
    """What one of `COMMANDS` prints; empty when it is not there or says no."""
    try:
        done = subprocess.run(
            COMMANDS[name], stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("ascii", "replace").strip() if done.returncode == 0 else ""


class Sampler:
    """Reads a plan's files, or runs its command, at a steady pace in a thread of its own, between start and stop.

    The agent's other thread only waits meanwhile, and the benchmark is another process: they share no lock.
    """

    def __init__(self, plan: Json) -> None:
        self.files, self.command = [str(file) for file in plan["files"]], str(plan["command"])
        self.interval_s = max(0.001, float(plan["interval_s"]))
        for file in self.files:
            if not file.startswith("/sys/") or ".." in file:
                raise ValueError("not a sensor's file: %s" % file)
        if self.command and self.command not in COMMANDS:
            raise ValueError("not a sensor's command: %s" % self.command)
        self.time_ns: list[int] = []
        self.values: list[list[str]] = []
        self.cpu_s = 0.0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> Json:
        """The readings: a time stamp and the texts of all files for each, in order."""
        self.ended.set()
        self.thread.join()
        return {"time_ns": self.time_ns, "values": self.values, "cpu_s": self.cpu_s}

    def run(self) -> None:
        handles = [open_or_none(file) for file in self.files]
        room = MAX_TEXT_BYTES
        due = time.monotonic()
        try:
            while room > 0:
                ended = self.ended.is_set()  # the last reading is one after the end, or there would be none beyond it
                before = time.monotonic_ns()
                texts = [run_command(self.command)] if self.command else [read_again(handle) for handle in handles]
                after = time.monotonic_ns()
                self.time_ns.append((before + after) // 2)
                self.values.append(texts)
                room -= sum(map(len, texts)) + 30  # a time stamp, and what JSON puts around it
                if ended:
                    break
                pace_s = self.interval_s
                if self.command:
                    pace_s = max(pace_s, (after - before) * 1e-9 / MAX_COMMAND_SHARE)
                now = time.monotonic()
                due = max(due + pace_s, now)  # what is late is skipped: the readings carry their own time
                self.ended.wait(due - now)
        finally:
            self.cpu_s = time.thread_time()
            for handle in handles:
                if handle is not None:
                    os.close(handle)


def open_or_none(file: str) -> int | None:
    try:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def read_again(handle: int | None) -> str:
    """A sysfs file says something new each time it is read from its beginning; opening it anew would cost more."""
    if handle is None:
        return ""
    try:
        return os.pread(handle, 4096, 0).decode("ascii", "replace").strip()
    except OSError:  # a chip that is asleep or gone: a missing sample, not the end
        return ""
