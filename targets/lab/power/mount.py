"""How the sensors get into a device: what its first process does, in its own mount namespace, before it pivots."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from targets.errors import EnvironmentFault
from targets.lab import namespaces as ns
from targets.lab.power.sensors import MOUNT, Sensor, links

# For the lab's doctor: program -> the Debian package that has it, and that brings the library of the same version.
NEEDS: Mapping[str, str] = {"fusermount3": "fuse3"}

_NO_EXEC = 8  # <sys/mount.h>
# The kernel itself checks the files' modes, for every user of the device.
_OPTIONS = "rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"


def open_fuse() -> int:
    """A new connection to the kernel's FUSE, for one device; raises EnvironmentFault.

    Give it to `mount_sensors` in the device's first process and to `start_server`, then close it in the keeper: whoever
    holds it keeps readers waiting after the server's end. `start_server` cannot be left out: until it answers, every
    access to the mount waits.
    """
    try:
        return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as fault:
        hint = "a container needs --device /dev/fuse" if isinstance(fault, FileNotFoundError) else "use sudo"
        raise EnvironmentFault(f"no sensors of power without /dev/fuse: {fault.strerror}", hint=hint) from fault


def mount_sensors(fuse: int, sys_folder: Path, sensors: Sequence[Sensor]) -> None:
    """Mount the server's files below a device's /sys, a writable folder, and lead its well-known paths to them.

    Takes the place of files that are there already. Touches nothing inside of the mount, so the server may start later.
    """
    mountpoint = sys_folder / MOUNT
    mountpoint.mkdir(parents=True)
    flags = ns.READ_ONLY | ns.NO_SUID | ns.NO_DEV | _NO_EXEC
    ns.mount("lab-power", mountpoint, "fuse", flags, f"fd={fuse},{_OPTIONS}")
    os.close(fuse)
    for path, target in links(sensors):
        link = sys_folder / path
        if link.is_dir():
            shutil.rmtree(link)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def mount_accounting(root: Path) -> None:
    """Put what the device's own programs did over what its /proc says of the machine's; waits for the server."""
    for path in (root / "sys" / MOUNT / "proc").iterdir():
        ns.bind(path, root / "proc" / path.name)
