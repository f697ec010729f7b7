"""What every emulated device starts from: another processor's programs by qemu-user, a root of its own, /proc and /sys.

`boot_board` and its like run these in a process just forked, in namespaces of its own; `ensure_emulation` comes before.
"""

import os
import subprocess
from pathlib import Path

from targets.errors import EnvironmentFault
from targets.lab import namespaces as ns
from targets.lab.power.mount import NEEDS
from targets.lab.profiles import Profile, cpuinfo, write_sys

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_RULES = Path("/usr/lib/binfmt.d")
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def programs(processor: str) -> dict[str, str]:
    """What this machine needs to build and run an emulated device: program or file → Debian package."""
    return {
        "mmdebstrap": "mmdebstrap",
        "apt-get": "apt",
        str(_RULES / f"qemu-{processor}.conf"): "qemu-user-static",
        "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
        **NEEDS,
    }


def ensure_emulation(processor: str) -> None:
    """Let the kernel run programs of another processor by qemu-user, where that is not set up yet; needs root.

    The rule carries the flag F: the kernel holds the emulator open, so a device's file system need not contain it.
    Raises EnvironmentFault.
    """
    rule = f"qemu-{processor}"
    try:
        if not (_BINFMT / "register").exists():
            ns.mount("binfmt_misc", _BINFMT, "binfmt_misc")
        if not (_BINFMT / rule).exists():
            (_BINFMT / "register").write_bytes((_RULES / f"{rule}.conf").read_bytes())
    except OSError as fault:
        hint = "apt-get install --no-install-recommends qemu-user-static"
        raise EnvironmentFault(f"programs for {processor} cannot run here: {fault}", hint=hint) from fault


def mount_kernel_folders(root: Path, board: Profile) -> None:
    """Give a device its /proc, /sys and /dev, as on the hardware that it looks like."""
    for name in ("run", "dev", "sys"):
        size = "size=16m"
        ns.mount("tmpfs", root / name, "tmpfs", ns.NO_SUID, f"mode=755,{size}")
    write_sys(board, root / "sys")
    ns.mount("proc", root / "proc", "proc")
    (root / "run/cpuinfo").write_text(cpuinfo(board), encoding="ascii")
    ns.bind(root / "run/cpuinfo", root / "proc/cpuinfo")
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
