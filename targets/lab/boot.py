"""What a device's first process does between being forked and becoming sshd, in namespaces of its own.

Runs in a child of the keeper that never returns to the keeper's code.
"""

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from targets.lab import namespaces as ns

PREFIX_BITS = 16
PI_ID = 1000  # uid and gid of the first user of a Debian
# What the device's own `name` folder holds, and where it appears on the device.
_ETC = {"ssh": "/etc/ssh", "passwd": "/etc/passwd", "shadow": "/etc/shadow", "group": "/etc/group"}
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What every kind of device needs to start."""

    hostname: str
    address: str
    folder: Path  # with `ssh/`, `passwd`, `shadow`, `group`
    disk_bytes: int


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


def boot_ssh_host(machine: Machine) -> None:
    """Become an SSH host: this machine's programs, read-only, with accounts, keys, /home and /tmp of its own."""
    socket.sethostname(machine.hostname)
    ns.mount("none", "/", flags=ns.RECURSIVE | ns.PRIVATE)
    ns.mount("proc", "/proc", "proc")
    network(machine)
    for name, place in _ETC.items():
        ns.bind(machine.folder / name, place)
    cover_private_folders(machine.disk_bytes)
    ns.mount("tmpfs", "/run", "tmpfs", ns.NO_SUID | ns.NO_DEV, "mode=755,size=16m")
    Path("/run/sshd").mkdir(mode=0o755)
    home = Path("/home/pi")
    home.mkdir(mode=0o755)
    os.chown(home, PI_ID, PI_ID)
    ns.mount("none", "/", flags=ns.REMOUNT | ns.BIND | ns.READ_ONLY)
    become_sshd({})


def cover_private_folders(disk_bytes: int) -> None:
    """Put a tmpfs over /home and /tmp, and over every folder that hides the interpreter from user `pi`.

    The interpreter's own folders are put back where they were, so that the device has our runtimes.
    """
    kept = interpreter_folders()
    covers = {Path("/home"), Path("/tmp")} | {closed for folder in kept for closed in closed_ancestors(folder)[:1]}
    staged = {folder: os.open(folder, os.O_PATH) for folder in kept if any(folder.is_relative_to(c) for c in covers)}
    for cover in sorted(covers):
        mode = "1777" if cover == Path("/tmp") else "755"
        ns.mount("tmpfs", cover, "tmpfs", ns.NO_SUID | ns.NO_DEV, f"mode={mode},size={disk_bytes}")
    for folder, handle in sorted(staged.items()):
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        ns.bind(f"/proc/self/fd/{handle}", folder)
        os.close(handle)


def interpreter_folders() -> set[Path]:
    """Where this interpreter, its standard library and its packages are."""
    found = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    return found - {Path("/usr"), Path("/usr/local")}


def closed_ancestors(folder: Path) -> list[Path]:
    """The folders above this one that others may not pass, topmost first."""
    return [above for above in reversed(folder.parents) if not above.stat().st_mode & stat.S_IXOTH]


def become_sshd(environment: dict[str, str]) -> None:
    """Replace this process by sshd, in the foreground, its log on standard error."""
    os.chdir("/")
    os.execve("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e"], {"PATH": SEARCH_PATH, **environment})
