"""ARM64 virtual machines whose clock counts instructions, so that latencies repeat to a thousandth.

A machine has a kernel, a disk and a memory of its own. Its clock moves on by two nanoseconds with every instruction,
however fast this machine is, and with real time when it waits. So it starts at this machine's time, and lags behind as
soon as it works; and its latencies compare with one another only: it has no cache and no parallel execution.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

from targets.lab import namespaces as ns
from targets.lab.boot import Machine, network
from targets.lab.cpio import Entry, archive, entries_of, file, folder
from targets.lab.kind import Kind, Say
from targets.lab.machine_image import FREE_BYTES, MachineImage, ensure_image
from targets.lab.state import LabDevice, ProcessId, lab_folder
from targets.lab.trees import interpreter

LABEL = "emulated instruction clock (QEMU, icount shift=1): times count instructions, not a board's milliseconds"
_MEMORY_MIB = 768
_ADDRESS = "10.0.2.15/24"  # in the network inside QEMU, where nothing else is
_INIT = Path(__file__).parent.parent / "machine_init.sh"
_LISTENS = b"Server listening on"  # says sshd, on its console


class VirtualMachine(Kind):
    """The tree of the ARM64 boards under Debian's kernel on QEMU's `virt` machine."""

    name = "vm"
    title = "ARM64 virtual machines"
    programs = {
        "mmdebstrap": "mmdebstrap",
        "apt-get": "apt",
        "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
        "qemu-system-aarch64": "qemu-system-arm",
        "mke2fs": "e2fsprogs",
    }
    stem = "vm"
    python = interpreter()
    start_s = 90.0  # 5 s alone; a loaded machine with several of them takes much longer

    def prepare(self, say: Say) -> str:
        return str(ensure_image(say).place)

    def boot(self, machine: Machine, device: LabDevice, resources: Path) -> None:
        socket.sethostname(machine.hostname)
        ns.mount("none", "/", flags=ns.RECURSIVE | ns.PRIVATE)
        ns.mount("proc", "/proc", "proc")
        network(machine)
        image = MachineImage(place=resources)
        initrd = machine.folder / "initrd"
        initrd.unlink(missing_ok=True)
        with os.fdopen(os.open(initrd, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(image.initrd.read_bytes() + archive(own_files(machine)))
        os.chdir("/")
        command = command_line(machine, image, initrd)
        os.execvp(command[0], command)

    def ready(self, device: LabDevice, process: ProcessId) -> bool:
        """By its console: QEMU accepts connections long before anybody inside does."""
        return True


def own_files(machine: Machine) -> Iterator[Entry]:
    """What belongs to one device only; `machine_init.sh` puts it in place."""
    own = {"hostname": machine.hostname, "hosts": f"127.0.0.1 localhost\n127.0.1.1 {machine.hostname}"}
    yield from (folder(name) for name in ("device", "device/etc", "device/run"))
    yield file("init", _INIT.read_bytes(), 0o755)
    yield file("device/address", f"{_ADDRESS}\n".encode())
    yield file("device/disk_kib", f"{min(machine.disk_bytes, FREE_BYTES) // 1024}\n".encode())
    yield file("device/run/edge-deploy-emulated", f"{LABEL}\n".encode())
    for name, text in own.items():
        yield file(f"device/etc/{name}", f"{text}\n".encode())
    for name in ("passwd", "group", "shadow", "ssh"):
        yield from entries_of(machine.folder / name, f"device/etc/{name}")


def command_line(machine: Machine, image: MachineImage, initrd: Path) -> list[str]:
    """QEMU's. Nothing of it can be reached but port 22, and nothing outside from inside."""
    settings = {
        "-machine": "virt",
        "-cpu": "cortex-a72",  # of a Raspberry Pi 4; nothing of its speed
        "-smp": "1",
        "-accel": "tcg,thread=single",
        # With sleep=off time would jump whenever the machine waits, and with it all that has a time-out.
        "-icount": "shift=1,align=off,sleep=on",
        "-m": str(_MEMORY_MIB),
        "-kernel": str(image.kernel),
        "-initrd": str(initrd),
        # Memory is zero at the start; to write zeros once more at every allocation would cost seconds.
        "-append": "console=ttyAMA0 quiet init_on_alloc=0 panic=-1",
        # Writes go to a temporary file that has no name.
        "-drive": f"file={image.disk},if=none,id=disk,format=raw,cache=unsafe,snapshot=on",
        "-netdev": f"user,id=network,ipv6=off,restrict=on,hostfwd=tcp:{machine.address}:22-:22",
        "-chardev": f"file,id=console,path={machine.folder}/console,logfile=/proc/self/fd/1,logappend=on",
        "-serial": "chardev:console",
        "-display": "none",
        "-monitor": "none",
    }
    words = [word for pair in settings.items() for word in pair]
    devices = ["-device", "virtio-blk-device,drive=disk", "-device", "virtio-net-device,netdev=network"]
    return ["qemu-system-aarch64", "-nodefaults", "-no-user-config", "-no-reboot", *words, *devices]
