"""The process beside a device that its sensors come from: it serves the files, advances the model, slows the device.

Forked by the keeper, not started anew: so it shares the keeper's memory, and its interpreter starts in no time.
"""

import contextlib
import errno
import gc
import os
import signal
import stat
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from targets.errors import EnvironmentFault
from targets.lab import namespaces as ns
from targets.lab.power.cgroup import Cgroup, CpuTime
from targets.lab.power.model import PowerParameters, State, allowed_cores, booted, step
from targets.lab.power.sensors import SensorSet
from targets.lab.power.truth import Truth, TruthLog

TICK_S = 0.1
CHARGER_FILE = "charger"  # beside the log: a charger is connected while it is there
HEAT_FILE = "heat_k"  # beside the log: kelvins by which the air around the device is hotter; changed at any time
# The kernel counts CPU time at its 4 ms tick: in much shorter steps one core would look like none or like several.
_LEAST_STEP_S = 0.01
# Over which the demand of a slowed device is observed: some periods of the quota.
_DEMAND_S = 0.5
_MOUNT_POLL_S = 0.005
_PRIORITY = -10  # a sensor does not wait for a busy processor; this one takes 0.5 % of it
_FILE_BYTES = 4096  # as every file of a sysfs claims to have


def start_server(fuse: int, cgroup: Cgroup, sensors: SensorSet, log: Path) -> int:
    """Fork the server of one device; its pid, for the caller to reap. `fuse` stays open here: close it.

    It ends with the caller, and when the device's mount namespace or cgroup does. Call from a process with one thread.
    Raises EnvironmentFault when FUSE's library is missing.
    """
    mfusepy = _mfusepy()  # here, so that all servers of a lab share it
    truth = TruthLog(log)
    pid = os.fork()
    if pid:
        os.close(truth.file)
        return pid
    status = 1
    try:
        ns.end_with_parent()
        gc.freeze()  # what the keeper made is not ours to collect; looking at it would copy it
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(2, 1)
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
        _close_all_but(fuse, truth.file)
        serve(mfusepy, fuse, Device(cgroup, sensors, log.parent), truth)
        status = 0
    except BaseException as fault:
        os.write(2, f"power: {type(fault).__name__}: {fault}\n".encode())
    finally:
        os._exit(status)


def _mfusepy() -> ModuleType:
    """The binding to libfuse 3; it would take version 2 where both are installed, which cannot use an open handle."""
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"  # read when it is imported
    try:
        import mfusepy
    except OSError as fault:
        hint = "sudo apt-get install --no-install-recommends fuse3"
        raise EnvironmentFault(f"sensors of power need FUSE's library: {fault}", hint=hint) from fault
    finally:
        del os.environ["FUSE_LIBRARY_NAME"]
    module: ModuleType = mfusepy
    return module


def _close_all_but(*kept: int) -> None:
    """Other devices' connections, listeners and pipes must not outlive the keeper in here."""
    first = 3
    for number in sorted(kept):
        os.closerange(first, number)
        first = number + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def serve(mfusepy: ModuleType, fuse: int, device: "Device", truth: TruthLog) -> None:
    """Serve one device until it ends."""
    threading.Thread(target=_tick, args=(device, truth), daemon=True).start()
    _wait_until_mounted(fuse)
    mfusepy.FUSE(SensorFiles(device), f"/dev/fd/{fuse}", foreground=True, nothreads=True, direct_io=True)


def _wait_until_mounted(fuse: int) -> None:
    """libfuse takes a connection without a mount for a broken one; a read too short for any request tells."""
    while True:
        try:
            os.read(fuse, 1)
        except OSError as fault:
            if fault.errno != errno.EPERM:
                return
            time.sleep(_MOUNT_POLL_S)


def _tick(device: "Device", truth: TruthLog) -> None:
    """Advance the device, also while nobody reads; without its cgroup there is no device any more."""
    try:
        while True:
            truth.append(Truth.of(device.advance()))
            time.sleep(TICK_S)
    except BaseException as fault:
        if not isinstance(fault, FileNotFoundError):
            print(f"power: {type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
        os._exit(1)


class Device:
    """The model at work on a real cgroup. Two threads use it: the one that serves, and the one that ticks."""

    def __init__(self, cgroup: Cgroup, sensors: SensorSet, folder: Path) -> None:
        self.cgroup, self.sensors = cgroup, sensors
        self.heat, self.charger = folder / HEAT_FILE, folder / CHARGER_FILE
        self.lock = threading.Lock()
        cgroup.limit(None)  # a cgroup that a crash has left may still be slowed
        now_s, cpu = time.monotonic(), cgroup.cpu_time()
        self.state = booted(sensors.parameters, now_s, cpu.used_s, sensors.intervals_s())
        self.observed = now_s, cpu
        self.demanded_cores = 0.0
        self.limit_cores: float | None = None

    def advance(self) -> State:
        """The device as it is now."""
        with self.lock:
            if time.monotonic() - self.state.now_s >= _LEAST_STEP_S:
                cpu = self.cgroup.cpu_time()
                after = step(self._surrounded(), self.state, time.monotonic(), cpu.used_s)
                self.state = replace(after, plugged=self.charger.exists())
                self._slow_down(cpu)
            return self.state

    def _surrounded(self) -> PowerParameters:
        """The board in air that is hotter by what the fault `heat` says."""
        parameters = self.sensors.parameters
        try:
            return replace(parameters, ambient_c=parameters.ambient_c + float(self.heat.read_text(encoding="ascii")))
        except (FileNotFoundError, ValueError):  # ValueError: it is just being written
            return parameters

    def _slow_down(self, cpu: CpuTime) -> None:
        """Give the device the quota that its temperature asks for, by what it would use if it could."""
        (since_s, before), now_s = self.observed, self.state.now_s
        if now_s - since_s >= _DEMAND_S:
            wanted_s = cpu.used_s - before.used_s + cpu.withheld_s - before.withheld_s
            self.demanded_cores = wanted_s / (now_s - since_s)
            self.observed = now_s, cpu
        limit = allowed_cores(self.sensors.parameters, self.demanded_cores) if self.state.throttled else None
        if limit != self.limit_cores:
            self.cgroup.limit(limit)
            self.limit_cores = limit


class SensorFiles:
    """The operations of a read-only FUSE file system: folders of files whose text is made when they are opened."""

    use_ns = True  # times, of which there are none here, in whole nanoseconds: mfusepy wants it said

    def __init__(self, device: Device) -> None:
        self.device = device
        self.folders = device.sensors.folders()
        self.modes = {
            f"/{folder}/{name}": 0o400 if name in sensor.root_only else 0o444
            for folder, sensors in self.folders.items()
            for sensor in sensors
            for name in sensor.files(device.sensors.parameters, device.state)
        }
        self.texts: dict[int, bytes] = {}  # open file -> what it said when reading began
        self.opened = 0

    def getattr(self, path: str, handle: int | None = None) -> dict[str, int]:
        if path in self.modes:
            return {"st_mode": stat.S_IFREG | self.modes[path], "st_nlink": 1, "st_size": _FILE_BYTES}
        if path == "/" or path[1:] in self.folders:
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        raise FileNotFoundError(errno.ENOENT, path)

    def readdir(self, path: str, handle: int) -> list[str]:
        names = [name.rpartition("/")[2] for name in self.modes if name.rpartition("/")[0] == path]
        return [".", "..", *(self.folders if path == "/" else names)]

    def open(self, path: str, flags: int) -> int:
        self.opened += 1
        self.texts[self.opened] = b""
        return self.opened

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        """A reader that takes byte by byte, as shells do, gets one text; one that starts again gets a new one."""
        if offset == 0:
            self.texts[handle] = self._text(path)
        return self.texts[handle][offset : offset + size]

    def release(self, path: str, handle: int) -> int:
        self.texts.pop(handle, None)
        return 0

    def _text(self, path: str) -> bytes:
        state = self.device.advance()
        _, folder, name = path.split("/")
        for sensor in self.folders[folder]:
            files = sensor.files(self.device.sensors.parameters, state)
            if name in files:
                return f"{files[name]}\n".encode("ascii")
        raise FileNotFoundError(errno.ENOENT, path)
