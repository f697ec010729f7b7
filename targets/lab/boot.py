"""What the first process of every kind of device does between being forked and becoming its service.

Runs in a child of the keeper that never returns to the keeper's code.
"""

import gc
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from targets.lab import namespaces as ns
from targets.lab.power.supply import Supply

PREFIX_BITS = 16
PI_ID = 1000  # uid and gid of the first user of a Debian
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_MOST_FILES = 1 << 20  # what Linux lets a process open at most, unless told otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What every kind of device needs to start."""

    hostname: str
    address: str
    folder: Path  # with `ssh/`, `passwd`, `shadow`, `group`
    disk_bytes: int
    supply: Supply


def network(machine: Machine) -> None:
    """Configure loopback and the link that the keeper has put here."""
    lines = ["link set lo up", f"addr add {machine.address}/{PREFIX_BITS} dev eth0", "link set eth0 up"]
    run_ip(lines)
    forget_dead_connections()


def forget_dead_connections() -> None:
    """Connections that nobody owns or answers any more would keep this network namespace for minutes."""
    Path("/proc/sys/net/ipv4/tcp_orphan_retries").write_text("1", encoding="ascii")


def run_ip(lines: Sequence[str]) -> None:
    """Many commands of `ip` in one process; raises OSError with what it said."""
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"ip: {done.stderr.strip()}")


def mount_devices(root: Path) -> None:
    """Give a device its /dev."""
    ns.mount("tmpfs", root / "dev", "tmpfs", ns.NO_SUID, "mode=755,size=16m")
    for name, (major, minor) in _DEVICES.items():
        os.mknod(root / "dev" / name, 0o020666, os.makedev(major, minor))
        (root / "dev" / name).chmod(0o666)
    for name in ("pts", "shm"):
        (root / "dev" / name).mkdir()
    ns.mount("devpts", root / "dev/pts", "devpts", options="newinstance,ptmxmode=0666,mode=620,gid=5")
    ns.mount("tmpfs", root / "dev/shm", "tmpfs", options="mode=1777,size=64m")
    (root / "dev/ptmx").symlink_to("pts/ptmx")
    (root / "dev/fd").symlink_to("/proc/self/fd")


def enter_root(root: Path) -> None:
    """Leave this machine's file systems for `root`, for good."""
    os.chdir(root)
    # One above the other, and the lower one is ours to take away: a root that is read-only has no folder for it.
    subprocess.run(["pivot_root", ".", "."], check=True, close_fds=False)
    ns.detach(".")
    os.chdir("/")


def become_sshd(environment: dict[str, str]) -> None:
    """Replace this process by sshd, in the foreground, its log on standard error."""
    os.chdir("/")
    os.execve("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e"], {"PATH": SEARCH_PATH, **environment})


def stay_as_init() -> None:
    """Leave what follows to a child, and end with it; reap what has lost its parent, as the first process must.

    A server that does not do this itself would leave zombies, which look alive to whoever waits for their end. Comes
    before the rest of the start, for what happens here from now on costs memory that was shared with the keeper.
    """
    child = os.fork()
    if not child:
        return
    gc.freeze()
    Path("/proc/self/comm").write_text("init", encoding="ascii")
    os.closerange(3, _MOST_FILES)  # those of the keeper
    while os.wait()[0] != child:
        pass
    os._exit(1)
