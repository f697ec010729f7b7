"""ARM boards: a Debian of theirs under qemu-user, with the /proc and /sys that programs expect of such a board."""

import os
import shutil
import socket
from pathlib import Path
from typing import ClassVar

from targets.lab import namespaces as ns
from targets.lab.boot import PI_ID, Machine, become_sshd, enter_root, network
from targets.lab.emulation import ensure_emulation, mount_kernel_folders, programs
from targets.lab.kind import Kind, Say
from targets.lab.power.sensors import SensorSet
from targets.lab.profiles import Profile, environment, profile
from targets.lab.state import LabDevice
from targets.lab.tree import Tree, ensure_tree
from targets.lab.trees import ARM64, ARMHF, interpreter

_FIRMWARE = Path(__file__).parent.parent  # with the commands that a board's firmware brings


class Board(Kind):
    """Debian's tree for its processor below a writable layer in memory."""

    processor: ClassVar[str]  # as qemu-user names it
    tree: ClassVar[Tree]

    def prepare(self, say: Say) -> str:
        ensure_emulation(self.processor)
        return str(ensure_tree(self.tree, say))

    def environment(self, device: LabDevice) -> dict[str, str]:
        return environment(profile(device.profile))

    def sensors(self, device: LabDevice) -> SensorSet | None:
        return SensorSet.of(profile(device.profile))

    def boot(self, machine: Machine, device: LabDevice, resources: Path) -> None:
        boot_board(machine, profile(device.profile), resources)


class Arm64Board(Board):
    """What boards are today."""

    name = "arm64"
    title = "ARM64 boards"
    says = "Debian arm64 under qemu-user with the board's /proc and /sys; LiteRT, ONNX Runtime, tflite-runtime"
    programs = programs("aarch64")
    stem = profile = "rpi4"
    python = interpreter()
    processor = "aarch64"
    tree = ARM64


class ArmhfBoard(Board):
    """A board whose system has 32 bits: of the runtimes only the older one has a wheel for it."""

    name = "armhf"
    title = "32-bit ARM boards"
    says = "the same for Debian armhf; tflite-runtime"
    programs = programs("arm")
    stem = profile = "rpi3-32"
    python = interpreter("tflite")
    processor = "arm"
    tree = ARMHF


def boot_board(machine: Machine, board: Profile, tree: Path) -> None:
    """Become an emulated ARM board: the tree below a writable layer in memory, with a /proc and /sys of its own."""
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
    mount_kernel_folders(root, board)
    machine.supply.connect(root)
    (root / "run/sshd").mkdir(mode=0o755)
    enter_root(root)
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
