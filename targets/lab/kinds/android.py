"""Android devices: the genuine adbd, as Debian builds it for arm64, in an Android-like tree under qemu-user.

It runs as root and asks for no key, and listens on the port that the lab forwards: `adb connect 127.0.0.1:PORT`.
"""

import os
import socket
from pathlib import Path

from targets.lab import namespaces as ns
from targets.lab.boot import Machine, enter_root, network, stay_as_init
from targets.lab.emulation import ensure_emulation, mount_kernel_folders, programs
from targets.lab.kind import Kind, Say
from targets.lab.power.sensors import SensorSet
from targets.lab.profiles import Profile, environment, profile
from targets.lab.state import LabDevice
from targets.lab.tree import ensure_tree
from targets.lab.trees import ANDROID, PROPERTIES, WRITABLE

_ADBD = "/system/bin/adbd"
_VARIABLES = {
    "PATH": "/system/bin:/system/xbin:/vendor/bin",
    "HOME": "/",
    "SHELL": "/system/bin/sh",
    "ANDROID_ROOT": "/system",
    "ANDROID_DATA": "/data",
    "TMPDIR": "/data/local/tmp",
}


class AndroidDevice(Kind):
    """A tree that nobody may write to, with /data in memory."""

    name = "android"
    title = "Android devices"
    says = "Debian's genuine arm64 adbd in an Android-like system"
    programs = programs("aarch64")
    stem = profile = "pixel-7"
    service = "adb"
    disk = "/data"

    def prepare(self, say: Say) -> str:
        ensure_emulation("aarch64")
        return str(ensure_tree(ANDROID, say))

    def sensors(self, device: LabDevice) -> SensorSet | None:
        return SensorSet.of(profile(device.profile))

    def environment(self, device: LabDevice) -> dict[str, str]:
        """What adbd finds in its environment its shells find in theirs."""
        return {**_VARIABLES, **environment(profile(device.profile))}

    def write_folder(self, folder: Path, device: LabDevice, authorized: str) -> None:
        (folder / "root").mkdir(parents=True)  # where the device mounts its own, unseen from outside
        text = properties(profile(device.profile), device.name)
        (folder / "build.prop").write_text(text, encoding="ascii")

    def boot(self, machine: Machine, device: LabDevice, resources: Path) -> None:
        stay_as_init()
        socket.sethostname(machine.hostname)
        ns.mount("none", "/", flags=ns.RECURSIVE | ns.PRIVATE)
        ns.mount("proc", "/proc", "proc")
        network(machine)
        root = machine.folder / "root"
        ns.bind(resources, root)
        ns.mount("none", root, flags=ns.REMOUNT | ns.BIND | ns.READ_ONLY)
        ns.bind(machine.folder / "build.prop", root / "system/build.prop")
        ns.mount("none", root / "system/build.prop", flags=ns.REMOUNT | ns.BIND | ns.READ_ONLY)
        mount_kernel_folders(root, profile(device.profile))
        machine.supply.connect(root)
        _write_properties(machine, root)
        _mount_data(machine, root)
        enter_root(root)
        os.execve(_ADBD, [_ADBD], self.environment(device))


def properties(board: Profile, name: str) -> str:
    """The text of build.prop."""
    found = {"ro.product.model": board["model"], "ro.serialno": name.replace("-", "").upper(), **board["properties"]}
    return "".join(f"{key}={value}\n" for key, value in sorted(found.items()))


def _write_properties(machine: Machine, root: Path) -> None:
    """Properties live in memory, so that a full disk does not keep anybody from setting one."""
    place = root / PROPERTIES
    place.parent.mkdir()
    text = (machine.folder / "build.prop").read_text(encoding="ascii")
    place.write_text(f"net.hostname={machine.hostname}\n{text}sys.boot_completed=1\n", encoding="ascii")


def _mount_data(machine: Machine, root: Path) -> None:
    ns.mount("tmpfs", root / "data", "tmpfs", ns.NO_SUID | ns.NO_DEV, f"mode=771,size={machine.disk_bytes}")
    for name, mode in WRITABLE.items():
        folder = root / name
        folder.mkdir(parents=True)
        folder.chmod(mode)
