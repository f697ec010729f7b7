"""The device lab, warm: 100 SSH hosts up in 4 s and down in 3 s; a board or a phone answers in 2 s, in at most 30 MB.

Needs root. `--pairs` is how often each is started; fetching file systems, which happens once, is not counted.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.pairs import Row, absent, at_most, main, middle
from targets.lab.doctor import findings
from targets.lab.lab import Wanted, down, up
from targets.lab.state import LOOPBACK, LabDevice
from targets.lab.tree import ensure_tree
from targets.lab.trees import ANDROID, ARM64

_NAME = f"bench-{os.getpid()}"
_HOSTS = 100
_PHONES = 20
_IDLE_S = 1.0  # an emulated sshd needs a moment to end the session that was greeted
# What an adb client says first: "CNXN", version, the largest payload, then length and check sum of its name, magic.
_ADB_NAME = b"host::\0"
_ADB_HELLO = struct.pack("<4s5I", b"CNXN", 0x01000000, 4096, len(_ADB_NAME), sum(_ADB_NAME), 0x4E584E43 ^ 0xFFFFFFFF)


def rows(times: int) -> Iterator[Row]:
    if missing := [finding.missing for kind in ("ssh", "arm64", "android") for finding in findings(kind)]:
        yield absent("device lab", "s", f"missing {', '.join(missing)}")
        return
    ensure_tree(ARM64)
    ensure_tree(ANDROID)
    hosts = [_start_and_end(Wanted(counts={"ssh": _HOSTS})) for _ in range(times)]
    yield at_most(f"{_HOSTS} SSH hosts up", middle([up_s for up_s, _, _ in hosts]), "s", 4.0)
    yield at_most(f"{_HOSTS} SSH hosts down", middle([down_s for _, down_s, _ in hosts]), "s", 3.0)
    idle_mb = middle([mb for _, _, mb in hosts])
    yield Row(name="memory of an SSH host, idle", value=idle_mb, unit="MB", peer=None, bar=None, ok=None)
    boards = [_start_and_end(Wanted(counts={"arm64": 1})) for _ in range(times)]
    yield at_most("ARM64 board answers SSH", middle([up_s for up_s, _, _ in boards]), "s", 2.0)
    yield at_most("memory of an ARM64 board, idle", middle([mb for _, _, mb in boards]), "MB", 30.0)
    phones = [_start_and_end(Wanted(counts={"android": 1})) for _ in range(times)]
    yield at_most("Android device answers adb", middle([up_s for up_s, _, _ in phones]), "s", 2.0)
    phones = [_start_and_end(Wanted(counts={"android": _PHONES}), every=True) for _ in range(times)]
    many_s = middle([up_s for up_s, _, _ in phones])
    yield Row(name=f"{_PHONES} Android devices answer adb", value=many_s, unit="s", peer=None, bar=None, ok=None)
    # Among many: the first process of each shares most of its memory with the keeper.
    many_mb = middle([mb for _, _, mb in phones])
    yield at_most(f"memory of one of {_PHONES} Android devices, idle", many_mb, "MB", 30.0)


def _start_and_end(wanted: Wanted, every: bool = False) -> tuple[float, float, float]:
    """Seconds until the last device has answered, or every one; seconds until all is gone; MB of a device."""
    start = time.perf_counter()
    lab = up(_NAME, wanted)
    try:
        for device in lab.devices if every else lab.devices[-1:]:
            _greet(device)
        up_s = time.perf_counter() - start
        time.sleep(_IDLE_S)
        memory_mb = sum(_pss_mb(process.pid) for process in lab.processes.values()) / len(lab.processes)
    finally:
        start = time.perf_counter()
        down(_NAME)
    return up_s, time.perf_counter() - start, memory_mb


def _greet(device: LabDevice) -> None:
    """Exchange the first words; an adb client calls the state after them `device`."""
    with socket.create_connection((LOOPBACK, device.port), timeout=30) as sock, sock.makefile("rb") as answer:
        if device.service == "adb":
            sock.sendall(_ADB_HELLO + _ADB_NAME)
        said = answer.read(24 + 8) if device.service == "adb" else answer.read(7)
        if said != b"SSH-2.0" and not (said.startswith(b"CNXN") and said.endswith(b"device::")):
            raise RuntimeError(f"{device.name} answers {said!r}")


def _pss_mb(pid: int) -> float:
    """Memory of a process and its children, what it shares counted by its share, in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    kib = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return kib * 1024 / 1e6 + sum(_pss_mb(int(child)) for child in children)


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=3)
