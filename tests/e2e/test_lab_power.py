"""Power and heat of a real process in a real cgroup, seen through a real FUSE mount and judged by the ground truth."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import powered_device
import pytest
from labs import namespaces_of, prefer, require_lab, surroundings

from targets.lab.power.cgroup import left_of, remove_all
from targets.lab.power.mount import NEEDS
from targets.lab.power.truth import Truth, read_truth
from targets.lab.state import ProcessId

RANGE_UJ = 65_532_610_987
# One busy core takes it from 45 °C past 70 °C in a second, and keeps it above 60 °C when slowed down by half.
PROFILE = f"""
cores = 4
frequencies_khz = [600000, 1000000, 1800000]
firmware = "vcgencmd"
sensors = [
    {{ kind = "ina226", bus_v = 5.1 }},
    {{ kind = "rapl", max_energy_range_uj = {RANGE_UJ}, start_uj = {RANGE_UJ - 5_000_000} }},
    {{ kind = "battery", current_unit = "mA", discharge_sign = 1 }},
    {{ kind = "pmic" }},
]
[power]
idle_w = 2.0
busy_core_w = 4.0
ambient_c = 25.0
resistance_k_per_w = 10.0
time_constant_s = 1.0
throttle_c = 70.0
release_c = 60.0
throttled_share = 0.5
"""


def require_power() -> None:
    """As `require_lab`, for what power and heat need beside it."""
    require_lab("ssh")
    missing = [program for program in NEEDS if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/bin:/bin")]
    missing += [] if Path("/dev/fuse").exists() else ["/dev/fuse"]
    if missing and os.environ.get("CI"):
        pytest.fail(f"missing {missing}")
    if missing:
        pytest.skip(f"missing {missing}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Powered:
    """A device under test, seen from the machine."""

    lab: str
    folder: Path
    keeper: "subprocess.Popen[str]"
    first: ProcessId
    server: ProcessId

    @property
    def sys(self) -> Path:
        """The device's /sys, through the window that the kernel leaves into its mount namespace."""
        return Path(f"/proc/{self.first.pid}/root{self.folder}/sys")

    def read(self, path: str) -> str:
        return (self.sys / path).read_text()

    def be_busy(self, processes: int) -> None:
        part = self.folder / "mode.part"
        part.write_text(str(processes))
        part.replace(self.folder / "mode")

    def truth(self) -> list[Truth]:
        return list(read_truth(self.folder / "truth.jsonl"))


@contextmanager
def powered(folder: Path) -> Iterator[Powered]:
    require_power()
    lab = f"test-{secrets.token_hex(4)}"
    (folder / "sys").mkdir()
    (folder / "profile.toml").write_text(PROFILE)
    (folder / "mode").write_text("0")
    argv = [sys.executable, powered_device.__file__, lab, str(folder)]
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, -20)  # a late reader misses what a sensor has shown in between
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as keeper:
        try:
            assert keeper.stdout
            first, server = (ProcessId.of(int(pid)) for pid in keeper.stdout.readline().split())
            device = Powered(lab=lab, folder=folder, keeper=keeper, first=first, server=server)
            wait_until((device.sys / "class/power_supply/battery").is_symlink)  # the last that is made
            prefer(lab)
            yield device
        finally:
            keeper.kill()
            keeper.wait()
            remove_all(lab)
            os.setpriority(os.PRIO_PROCESS, 0, ours)


def wait_until(happened: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Powered]:
    folder = tmp_path_factory.mktemp("powered")
    folder.chmod(0o755)
    with powered(folder) as device:
        yield device


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What a meter on the device would have read."""

    times_s: list[float]
    power_w: list[float]
    battery_w: list[float]
    counter_uj: tuple[int, int]  # before and after

    def late_s(self) -> float:
        return max(after - before for before, after in pairwise(self.times_s))

    def integral_j(self, watts: list[float]) -> float:
        return sum(w * (after - before) for w, (before, after) in zip(watts, pairwise(self.times_s), strict=False))


def read_all(device: Powered) -> Readings:
    """From idle to idle, so that the delay of an averaging sensor costs nothing at the ends."""
    times, power, battery = [], [], []
    before_uj = int(device.read("class/powercap/intel-rapl:0/energy_uj"))
    start = time.monotonic()
    for busy, until_s in ((0, 0.5), (1, 1.5), (0, 2.0), (2, 2.5), (0, 4.5)):
        device.be_busy(busy)
        while (now := time.monotonic()) < start + until_s:
            times.append(now)
            power.append(int(device.read("class/hwmon/hwmon1/power1_input")) / 1e6)
            milliamperes, microvolts = (
                int(device.read(f"class/power_supply/battery/{name}")) for name in ("current_now", "voltage_now")
            )
            battery.append(milliamperes * microvolts / 1e9)
            time.sleep(0.01)
    after_uj = int(device.read("class/powercap/intel-rapl:0/energy_uj"))
    return Readings(times_s=times, power_w=power, battery_w=battery, counter_uj=(before_uj, after_uj))


def test_sensors_agree_with_the_energy_that_was_really_used(device: Powered) -> None:
    readings = read_all(device)
    for _ in range(4):  # one that came late has missed what a sensor has shown, as a real one would
        if readings.late_s() < 0.07:
            break
        readings = read_all(device)
    begin_s, end_s = readings.times_s[0], readings.times_s[-1]
    wait_until(lambda: device.truth()[-1].t_monotonic_ns / 1e9 > end_s)

    truth = device.truth()
    moments_s = [line.t_monotonic_ns / 1e9 for line in truth]
    begin_j, end_j = np.interp([begin_s, end_s], moments_s, [line.energy_j for line in truth])
    true_j = end_j - begin_j
    assert true_j > 4.4 * 2.0 + 3.0  # what idling alone takes, and a good part of two core-seconds at 4 W
    assert truth[-1].energy_j == pytest.approx(  # nothing but the CPU time of the device has made it
        2.0 * (moments_s[-1] - moments_s[0]) + 4.0 * (truth[-1].cpu_s - truth[0].cpu_s), rel=1e-3
    )
    assert readings.integral_j(readings.power_w) == pytest.approx(true_j, rel=0.01)
    assert readings.integral_j(readings.battery_w) == pytest.approx(true_j, rel=0.01)
    before_uj, after_uj = readings.counter_uj
    assert after_uj < RANGE_UJ - 5_000_000  # where it began: it has wrapped
    assert (after_uj - before_uj) % RANGE_UJ / 1e6 == pytest.approx(true_j, rel=0.01)


def test_a_hot_device_is_really_slowed_down_and_recovers(device: Powered) -> None:
    clock, firmware = "devices/system/cpu/cpu3/cpufreq/scaling_cur_freq", "devices/platform/lab-power/firmware"
    wait_until(lambda: device.read(clock) == "1800000\n")
    begun_ns = device.truth()[-1].t_monotonic_ns
    device.be_busy(1)
    wait_until(lambda: device.truth()[-1].throttled)
    assert device.read(clock) == "600000\n"
    assert device.read(f"{firmware}/get_throttled") == "throttled=0x20002\n"
    assert 60_000 < int(device.read("class/thermal/thermal_zone0/temp")) < 90_000
    time.sleep(2.5)
    device.be_busy(0)
    wait_until(lambda: not device.truth()[-1].throttled)
    assert device.read(clock) == "1800000\n"
    assert device.read(f"{firmware}/get_throttled") == "throttled=0x20000\n"

    truth = [line for line in device.truth() if line.t_monotonic_ns > begun_ns]
    hot = [line.t_monotonic_ns / 1e9 for line in truth if line.throttled]
    moments, done = np.loadtxt(device.folder / "work-0", usecols=(0, 1)).T
    cold_rate = best_rate(moments, done, begun_ns / 1e9, hot[0])
    hot_rate = best_rate(moments, done, hot[0] + 0.2, hot[0] + 2.5)
    assert 0.4 < hot_rate / cold_rate < 0.6  # the quota leaves 0.5


def best_rate(moments: "np.ndarray", done: "np.ndarray", begin_s: float, end_s: float) -> float:
    """Work per second in the best 0.4 s between two moments: what a busy machine disturbs least."""
    window_s = 0.4
    starts = np.arange(begin_s, end_s - window_s, 0.05)
    return max(np.interp(start + window_s, moments, done) - np.interp(start, moments, done) for start in starts)


def test_two_busy_cores_are_slowed_as_much_as_one(device: Powered) -> None:
    """A slow clock takes no cores away."""
    device.be_busy(2)
    wait_until(lambda: device.truth()[-1].throttled)
    time.sleep(1.0)  # until its demand is known
    before = device.truth()[-1]
    time.sleep(1.5)
    after = device.truth()[-1]
    device.be_busy(0)
    cores = (after.cpu_s - before.cpu_s) / (after.t_monotonic_ns - before.t_monotonic_ns) * 1e9
    assert 0.8 < cores < 1.15


def test_files_are_those_of_a_sysfs(device: Powered) -> None:
    user = ["--setuid=1000", "--setgid=1000", f"--wd={device.sys}"]
    inside = ["nsenter", f"--target={device.first.pid}", "--mount", *user, "--"]

    def as_pi(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*inside, *command], capture_output=True, text=True, check=False)

    assert 40_000 < int(as_pi("cat", "class/thermal/thermal_zone0/temp").stdout) < 120_000
    assert "denied" in as_pi("cat", "class/powercap/intel-rapl:0/energy_uj").stderr
    refused = as_pi("sh", "-c", "echo 1 > class/thermal/thermal_zone0/temp")
    assert refused.returncode != 0
    # A shell's `read` takes byte by byte, and must not see pieces of two readings.
    script = "while read -r line; do echo $line; done <devices/platform/lab-power/firmware/pmic_read_adc"
    assert len(as_pi("sh", "-c", script).stdout.splitlines()) == 26
    chips = {(path / "name").read_text() for path in (device.sys / "class/hwmon").iterdir()}
    assert chips == {"cpu_thermal\n", "ina226\n"}
    status = (device.sys / "class/thermal/thermal_zone0/temp").stat()
    assert (status.st_size, status.st_mode & 0o777) == (4096, 0o444)


def test_the_server_is_small(device: Powered) -> None:
    lines = Path(f"/proc/{device.server.pid}/smaps_rollup").read_text().splitlines()
    pss_kb = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    assert pss_kb < 11_000  # with the 19 MB of a board: less than 30 MB


@pytest.mark.parametrize("victim", ["server", "keeper", "device"])
def test_nothing_is_left_when_one_is_killed(tmp_path: Path, victim: str) -> None:
    before = surroundings()
    with powered(tmp_path) as device:
        made = namespaces_of(device.first.pid) - namespaces_of(os.getpid())
        assert made and surroundings() == before
        device.read("class/thermal/thermal_zone0/temp")
        if victim == "server":
            device.server.signal(signal.SIGKILL)
            wait_until(lambda: not device.server.alive())
            with pytest.raises(OSError, match="connect"):  # an error, never a reader that waits for ever
                device.read("class/thermal/thermal_zone0/temp")
            device.first.signal(signal.SIGKILL)
        elif victim == "keeper":
            device.keeper.kill()
            device.keeper.wait()
        else:
            device.first.signal(signal.SIGKILL)
        wait_until(lambda: not device.first.alive() and not device.server.alive())
        if victim == "keeper":
            assert list(left_of(device.lab))
            remove_all(device.lab)
        else:  # a living keeper has removed the cgroup itself
            assert device.keeper.stdout and device.keeper.stdout.readline() == "both have ended\n"
        assert list(left_of(device.lab)) == []
    assert surroundings() == before


def test_cpu_time_of_a_real_cgroup_of_version_2(tmp_path: Path) -> None:
    """Counting needs no controller there, so it works also where version 1 has them all."""
    require_lab("ssh")
    script = f"""
import time
from pathlib import Path
from targets.lab import namespaces as ns
from targets.lab.power.cgroup import CgroupV2, Hierarchies, left_of, remove_all
ns.mount("none", "/", flags=ns.RECURSIVE | ns.PRIVATE)
top = Path({str(tmp_path)!r})
ns.mount("none", top, "cgroup2")
before = (top / "cgroup.procs").read_text()
cgroup = CgroupV2(folder=top / "edge-deploy-lab.{tmp_path.name}.board")
cgroup.folder.mkdir()
cgroup.enter()
start = time.process_time()
while time.process_time() < start + 0.3:
    pass
used_s = cgroup.cpu_time().used_s
(top / "cgroup.procs").write_text("0")
seen = Hierarchies(v1={{}}, v2=top, own={{"": top}})
assert list(left_of("{tmp_path.name}", seen)) == [cgroup.folder]
remove_all("{tmp_path.name}", seen)
print(used_s, cgroup.folder.exists())
"""
    argv = ["unshare", "--mount", sys.executable, "-c", script]
    used_s, left = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    assert 0.28 < float(used_s) < 0.5 and left == "False"
