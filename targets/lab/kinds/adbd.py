"""Phones whose adb daemon is ours: for the states that the genuine one cannot show. See `targets.lab.adbd`."""

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from targets.lab import namespaces as ns
from targets.lab.adbd.state import AdbdState
from targets.lab.boot import SEARCH_PATH, Machine, enter_root, mount_devices, network
from targets.lab.kind import Kind
from targets.lab.kinds.ssh import interpreter_folders
from targets.lab.state import LabDevice

_PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 7",
    "ro.product.name": "panther",
    "ro.product.device": "panther",
    "ro.build.version.sdk": "34",
    "sys.boot_completed": "1",
}
# Apps that are installed, each with a folder of its own user: NAME UID KIND, as `run-as` of `targets.lab.adbd` reads.
_PACKAGES = (("com.example.debug", 10123, "debuggable"), ("com.example.release", 10124, "release"))
_OURS = Path(__file__).resolve().parents[2]  # this package, which need not be where packages are installed
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64")  # links into /usr on a Debian
_ETC = ("ld.so.cache", "passwd", "group", "localtime")


class ScriptedPhone(Kind):
    """This machine's own programs, read-only, with a /data of the device's own."""

    name = "adbd"
    title = "scripted phones"
    says = "an adb daemon that can be unauthorized, offline or cut"
    programs: ClassVar[Mapping[str, str]] = {}
    stem = "phone"
    service = "adb"
    disk = "/data"

    def environment(self, device: LabDevice) -> dict[str, str]:
        return {"PATH": f"/system/bin:{SEARCH_PATH}", "HOME": "/data/local/tmp"}

    def write_folder(self, folder: Path, device: LabDevice, authorized: str) -> None:
        for name in ("root", "adbd"):
            (folder / name).mkdir(parents=True)
        text = "".join(f"{key}={value}\n" for key, value in _PROPERTIES.items())
        serial = f"ro.serialno={device.name.replace('-', '').upper()}\n"
        (folder / "adbd/properties").write_text(text + serial, encoding="ascii")
        apps = "".join(f"{name} {uid} {kind}\n" for name, uid, kind in _PACKAGES)
        (folder / "adbd/packages").write_text(apps, encoding="ascii")
        AdbdState().save(state_file(folder))

    def boot(self, machine: Machine, device: LabDevice, resources: Path) -> None:
        socket.sethostname(machine.hostname)
        ns.mount("none", "/", flags=ns.RECURSIVE | ns.PRIVATE)
        ns.mount("proc", "/proc", "proc")
        network(machine)
        root = machine.folder / "root"
        ns.mount("tmpfs", root, "tmpfs", options="mode=755,size=16m")
        for place in (Path("/usr"), *sorted(interpreter_folders()), _OURS):
            _show(place, root)
        for name in _MERGED:
            if (link := Path("/") / name).is_symlink():
                (root / name).symlink_to(link.readlink())
            elif link.exists():
                _show(link, root)
        (root / "etc").mkdir(exist_ok=True)
        for name in _ETC:
            if Path("/etc", name).exists():
                (root / "etc" / name).write_bytes(Path("/etc", name).read_bytes())
        for name in ("adbd", "data", "dev", "proc", "system", "tmp"):
            (root / name).mkdir(exist_ok=True)  # the interpreter may be below /tmp, say
        ns.bind(machine.folder / "adbd", root / "adbd")
        mount_devices(root)
        ns.mount("proc", root / "proc", "proc")
        options = f"mode=771,size={machine.disk_bytes}"
        ns.mount("tmpfs", root / "data", "tmpfs", ns.NO_SUID | ns.NO_DEV, options)
        (root / "data/local/tmp").mkdir(parents=True)
        (root / "data/data").mkdir(mode=0o771)
        for name, uid, _ in _PACKAGES:
            (root / "data/data" / name).mkdir(mode=0o700)
            os.chown(root / "data/data" / name, uid, uid)
        enter_root(root)
        argv = [sys.executable, "-I", "-m", "targets.lab.adbd", "--root", "/", "--host", machine.address]
        argv += ["--state", "/adbd/state.json", "--properties", "/adbd/properties", "--commands", "/system/bin"]
        os.execve(argv[0], argv, self.environment(device))


def _show(place: Path, root: Path) -> None:
    """Let the device see a folder of this machine where it is."""
    target = root / place.relative_to("/")
    target.mkdir(parents=True, exist_ok=True)
    ns.bind(place, target)
    ns.mount("none", target, flags=ns.REMOUNT | ns.BIND | ns.READ_ONLY)


def state_file(folder: Path) -> Path:
    """Where the daemon of the device with this folder reads its state from, as this machine sees it."""
    return folder / "adbd/state.json"
