"""SSH hosts: genuine OpenSSH on this machine's own programs, each in namespaces of its own."""

import os
import socket
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from targets.lab import namespaces as ns
from targets.lab.boot import PI_ID, Machine, become_sshd, network
from targets.lab.kind import Kind
from targets.lab.state import LabDevice

# What the device's own `name` folder holds, and where it appears on the device.
_ETC = {"ssh": "/etc/ssh", "passwd": "/etc/passwd", "shadow": "/etc/shadow", "group": "/etc/group"}


class SshHost(Kind):
    """This machine's programs, read-only, with accounts, keys, /home and /tmp of the device's own."""

    name = "ssh"
    title = "SSH hosts"
    says = "genuine OpenSSH on this machine's programs; user pi, a disk in memory"
    programs: ClassVar[Mapping[str, str]] = {
        "/usr/sbin/sshd": "openssh-server",
        "/usr/lib/*/faketime/libfaketime.so.1": "libfaketime",  # for the fault `clock`
    }
    stem = "pi"
    python = sys.executable
    disk = "/home"

    def boot(self, machine: Machine, device: LabDevice, resources: Path) -> None:
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
