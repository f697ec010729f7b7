"""A keeper in miniature for the tests of power and heat: one device in namespaces and a cgroup, with its sensors.

Run as `python powered_device.py LAB FOLDER`; FOLDER/profile.toml describes the board. Prints the pids of device and
server, then waits. The device does what FOLDER/mode says, "idle" or "busy" with a number of processes, and counts in
FOLDER/work-N.
"""

import os
import sys
import time
import tomllib
from pathlib import Path

from targets.lab import namespaces as ns
from targets.lab.power.cgroup import Cgroup, create
from targets.lab.power.mount import mount_sensors, open_fuse
from targets.lab.power.sensors import SensorSet
from targets.lab.power.server import start_server

_SLICE_S = 0.02


def device(fuse: int, folder: Path, cgroup: Cgroup, sensors: SensorSet) -> None:
    ns.end_with_parent()
    cgroup.enter()
    ns.unshare(ns.NEW_MOUNT)
    ns.mount("none", "/", flags=ns.RECURSIVE | ns.PRIVATE)
    ns.mount("tmpfs", folder / "sys", "tmpfs", options="mode=755")
    static = folder / "sys/class/thermal/thermal_zone0"  # as `write_sys` leaves it
    static.mkdir(parents=True)
    (static / "temp").write_text("1\n")
    mount_sensors(fuse, folder / "sys", sensors.sensors)
    workers = 2
    number = next((index for index in range(1, workers) if os.fork() == 0), 0)
    if number:
        ns.end_with_parent()
    work(folder, number)


def work(folder: Path, number: int) -> None:
    """Write what has been done so far, and when, after every slice of work."""
    done = 0
    with (folder / f"work-{number}").open("a", buffering=1) as log:
        while True:
            if int((folder / "mode").read_text() or 0) <= number:
                time.sleep(_SLICE_S)
                continue
            end = time.monotonic() + _SLICE_S
            while time.monotonic() < end:
                done += 1
            log.write(f"{time.monotonic()} {done}\n")


def main() -> None:
    lab, folder = sys.argv[1], Path(sys.argv[2])
    sensors = SensorSet.of(tomllib.loads((folder / "profile.toml").read_text()))
    cgroup = create(lab, "board")
    fuse = open_fuse()
    ns.unshare(ns.NEW_PID)
    first = os.fork()
    if first == 0:
        try:
            device(fuse, folder, cgroup, sensors)
        finally:
            os._exit(1)
    ns.enter_own_pid_namespace()
    server = start_server(fuse, cgroup, sensors, folder / "truth.jsonl")
    os.close(fuse)
    print(first, server, flush=True)
    os.waitpid(first, 0)
    os.waitpid(server, 0)
    cgroup.remove()
    print("both have ended", flush=True)


if __name__ == "__main__":
    main()
