"""What every emulated device starts from: another processor's programs by qemu-user, a root of its own, /proc and /sys.

`boot_board` and its like run these in a process just forked, in namespaces of its own; `ensure_emulation` comes before.
"""

from pathlib import Path

from targets.errors import EnvironmentFault
from targets.lab import namespaces as ns
from targets.lab.boot import mount_devices
from targets.lab.power.mount import NEEDS
from targets.lab.profiles import Profile, cpuinfo, write_sys

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_RULES = Path("/usr/lib/binfmt.d")


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
    for name in ("run", "sys"):
        ns.mount("tmpfs", root / name, "tmpfs", ns.NO_SUID, "mode=755,size=16m")
    write_sys(board, root / "sys")
    ns.mount("proc", root / "proc", "proc")
    (root / "run/cpuinfo").write_text(cpuinfo(board), encoding="ascii")
    ns.bind(root / "run/cpuinfo", root / "proc/cpuinfo")
    mount_devices(root)
