"""Who works on a rollout: a process that cannot be confused with a later one of the same number."""

import os
import socket
import time
from pathlib import Path


def this_controller() -> str:
    """This process, told from all others that ever had its number."""
    return f"{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}"


def _started(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if stat[0] in "ZX" else stat[19]


def lives(owner: str, until_s: float) -> bool:
    """Whether a controller still works: on this host that can be seen, on another it must have said so lately."""
    if not owner:
        return False
    host, pid, started = owner.rsplit(":", 2)
    if host == socket.gethostname() and Path("/proc/self/stat").exists():
        return _started(int(pid)) == started
    return time.time() < until_s


def who(owner: str) -> str:
    """A controller as one calls it."""
    host, pid, _ = owner.rsplit(":", 2)
    return f"process {pid} on {host}"
