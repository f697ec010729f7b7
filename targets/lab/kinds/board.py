"""ARM boards: a Debian of theirs under qemu-user, with the /proc and /sys that programs expect of such a board."""

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from targets.errors import EnvironmentFault
from targets.lab import namespaces as ns
from targets.lab.boot import PI_ID, Machine, become_sshd, network
from targets.lab.kind import Kind, Say
from targets.lab.power.mount import NEEDS
from targets.lab.power.sensors import SensorSet
from targets.lab.profiles import Profile, cpuinfo, environment, profile, write_sys
from targets.lab.state import LabDevice
from targets.lab.tree import ensure_tree
from targets.lab.trees import ARM64, interpreter

_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_RULES = Path("/usr/lib/binfmt.d")
_FIRMWARE = Path(__file__).parent.parent  # with the commands that a board's firmware brings
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


class Arm64Board(Kind):
    """Debian's arm64 tree below a writable layer in memory."""

    name = "arm64"
    title = "ARM64 boards"
    programs: ClassVar[Mapping[str, str]] = {
        "mmdebstrap": "mmdebstrap",
        "apt-get": "apt",
        "/usr/lib/binfmt.d/qemu-aarch64.conf": "qemu-user-static",
        "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
        **NEEDS,
    }
    stem = profile = "rpi4"
    python = interpreter()

    def prepare(self, say: Say) -> str:
        ensure_emulation("aarch64")
        return str(ensure_tree(ARM64, say))

    def environment(self, device: LabDevice) -> dict[str, str]:
        return environment(profile(device.profile))

    def sensors(self, device: LabDevice) -> SensorSet | None:
        return SensorSet.of(profile(device.profile))

    def boot(self, machine: Machine, device: LabDevice, resources: Path) -> None:
        boot_board(machine, profile(device.profile), resources)


def ensure_emulation(processor: str) -> None:
    """Let the kernel run programs of another processor by qemu-user, where that is not set up yet; needs root.

    The rule carries the flag F: the kernel holds the emulator open, so a board's file system need not contain it.
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


def boot_board(machine: Machine, board: Profile, tree: Path) -> None:
    """Become an emulated ARM64 board: the tree below a writable layer in memory, with a /proc and /sys of its own."""
    socket.sethostname(machine.hostname)
    ns.mount("none", "/", flags=ns.RECURSIVE | ns.PRIVATE)
    ns.mount("proc", "/proc", "proc")
    network(machine)  # with this machine's `ip`; an emulated one is slower
    disk = machine.folder / "disk"
    ns.mount("tmpfs", disk, "tmpfs", options=f"mode=755,size={machine.disk_bytes}")
    for name in ("upper", "work", "root"):
        (disk / name).mkdir()
    root = disk / "root"
    ns.mount("overlay", root, "overlay", options=f"lowerdir={tree},upperdir={disk}/upper,workdir={disk}/work")
    _write_etc(machine, root)
    if board["firmware"]:
        shutil.copy(_FIRMWARE / f"{board['firmware']}.sh", root / "usr/bin" / board["firmware"])
        (root / "usr/bin" / board["firmware"]).chmod(0o755)
    _mount_kernel_folders(root, board)
    machine.supply.connect(root / "sys")
    os.chdir(root)
    Path(".machine").mkdir()
    subprocess.run(["pivot_root", ".", ".machine"], check=True, close_fds=False)
    os.chdir("/")
    ns.detach("/.machine")
    Path("/.machine").rmdir()
    become_sshd(environment(board))


def _write_etc(machine: Machine, root: Path) -> None:
    for name in ("passwd", "group", "shadow"):
        shutil.copy(machine.folder / name, root / "etc" / name)
    shutil.copytree(machine.folder / "ssh", root / "etc/ssh", dirs_exist_ok=True)
    (root / "etc/hostname").write_text(machine.hostname + "\n", encoding="ascii")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {machine.hostname}\n", encoding="ascii")
    home = root / "home/pi"
    home.mkdir(mode=0o755)
    os.chown(home, PI_ID, PI_ID)


def _mount_kernel_folders(root: Path, board: Profile) -> None:
    for name in ("run", "dev", "sys"):
        size = "size=16m"
        ns.mount("tmpfs", root / name, "tmpfs", ns.NO_SUID, f"mode=755,{size}")
    (root / "run/sshd").mkdir(mode=0o755)
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
