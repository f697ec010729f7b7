"""The device lab, warm: 100 SSH hosts up in 4 s and down in 3 s, an ARM64 board answers in 2 s, in at most 30 MB.

Needs root. `--pairs` is how often each is started; the first start of a board, which fetches its file system, is not
counted.
"""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.pairs import Row, absent, at_most, main, middle
from targets.lab.doctor import findings
from targets.lab.lab import Wanted, down, up
from targets.lab.state import LOOPBACK, LabState
from targets.lab.tree import ensure_tree
from targets.lab.trees import ARM64

_NAME = f"bench-{os.getpid()}"
_HOSTS = 100


def rows(times: int) -> Iterator[Row]:
    if missing := [finding.missing for kind in ("ssh", "arm64") for finding in findings(kind)]:
        yield absent("device lab", "s", f"missing {', '.join(missing)}")
        return
    ensure_tree(ARM64)
    hosts = [_start_and_end(Wanted(counts={"ssh": _HOSTS})) for _ in range(times)]
    yield at_most(f"{_HOSTS} SSH hosts up", middle([up_s for up_s, _, _ in hosts]), "s", 4.0)
    yield at_most(f"{_HOSTS} SSH hosts down", middle([down_s for _, down_s, _ in hosts]), "s", 3.0)
    idle_mb = middle([mb for _, _, mb in hosts])
    yield Row(name="memory of an SSH host, idle", value=idle_mb, unit="MB", peer=None, bar=None, ok=None)
    boards = [_start_and_end(Wanted(counts={"arm64": 1})) for _ in range(times)]
    yield at_most("ARM64 board answers SSH", middle([up_s for up_s, _, _ in boards]), "s", 2.0)
    yield at_most("memory of an ARM64 board, idle", middle([mb for _, _, mb in boards]), "MB", 30.0)


def _start_and_end(wanted: Wanted) -> tuple[float, float, float]:
    """Seconds until the last device has spoken SSH, seconds until all is gone, MB of a device's first process."""
    start = time.perf_counter()
    lab = up(_NAME, wanted)
    try:
        _greet(lab)
        up_s = time.perf_counter() - start
        memory_mb = sum(_pss_mb(process.pid) for process in lab.processes.values()) / len(lab.processes)
    finally:
        start = time.perf_counter()
        down(_NAME)
    return up_s, time.perf_counter() - start, memory_mb


def _greet(lab: LabState) -> None:
    device = lab.devices[-1]
    with socket.create_connection((LOOPBACK, device.port), timeout=30) as sock:
        if not sock.recv(8).startswith(b"SSH-2.0"):
            raise RuntimeError(f"{device.name} speaks no SSH")


def _pss_mb(pid: int) -> float:
    """Memory of a process, what it shares counted by its share, in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"no Pss of process {pid}")


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=3)
