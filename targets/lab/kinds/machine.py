"""ARM64 virtual machines whose clock counts instructions, so that latencies repeat to a thousandth.

A machine has a kernel, a disk and a memory of its own. Its clock moves on by two nanoseconds with every instruction,
however fast this machine is, and with real time when it waits. So it starts at this machine's time, and lags behind as
soon as it works; and its latencies compare with one another only: it has no cache and no parallel execution.
"""

import os
import shlex
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from targets.lab import namespaces as ns
from targets.lab.boot import SEARCH_PATH, Machine, network
from targets.lab.cpio import Entry, archive, entries_of, file, folder
from targets.lab.kind import Kind, Say
from targets.lab.machine_image import BLOCK_BYTES, FREE_BYTES, MachineImage, ensure_image
from targets.lab.state import LOOPBACK, LabDevice, LabState, ProcessId
from targets.lab.trees import interpreter

LABEL = "emulated instruction clock (QEMU, icount shift=1): times count instructions, not a board's milliseconds"
_MEMORY_MIB = 512  # a session with LiteRT or ONNX Runtime and a small model needs 100
_INIT = Path(__file__).parent.parent / "machine_init.sh"
# New memory is zero already, and nobody is spied on here: what Debian's kernel does about either costs a quarter of all
# instructions. panic=-1: when sshd ends, so does the machine.
_KERNEL_OPTIONS = "console=ttyAMA0 quiet init_on_alloc=0 mitigations=off kpti=off nokaslr panic=-1"
_CONSOLE_PORT = 2022
# A second sshd, for root only: nothing that is done to the device's own shuts it out.
_CONSOLE = f"""Port {_CONSOLE_PORT}
HostKey /run/console/key
AuthorizedKeysFile /run/console/authorized_keys
PidFile none
UsePAM no
PermitRootLogin prohibit-password
AllowUsers root
UseDNS no
"""


class VirtualMachine(Kind):
    """The tree of the ARM64 boards under Debian's kernel on QEMU's `virt` machine."""

    name = "vm"
    title = "ARM64 virtual machines"
    says = "Debian's own kernel under QEMU with an instruction clock"
    programs: ClassVar[Mapping[str, str]] = {
        "mmdebstrap": "mmdebstrap",
        "apt-get": "apt",
        "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
        "qemu-system-aarch64": "qemu-system-arm",
        "mke2fs": "e2fsprogs",
        "ssh": "openssh-client",
    }
    stem = "vm"
    python = interpreter()
    own_kernel = True
    start_s = 90.0  # 3 s alone; where many share a processor, it takes much longer

    def prepare(self, say: Say) -> str:
        return str(ensure_image(say).place)

    def boot(self, machine: Machine, device: LabDevice, resources: Path) -> None:
        socket.sethostname(machine.hostname)
        ns.mount("none", "/", flags=ns.RECURSIVE | ns.PRIVATE)
        ns.mount("proc", "/proc", "proc")
        network(machine)
        os.chdir(machine.folder)
        for name in ("console", "initrd"):  # of before a reboot
            Path(name).unlink(missing_ok=True)
        image = MachineImage(place=resources)
        with os.fdopen(os.open("initrd", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(image.initrd.read_bytes() + archive(own_files(machine)))
        os.execvp("qemu-system-aarch64", command_line(machine, image))

    def ready(self, device: LabDevice, process: ProcessId) -> bool:
        """By what sshd says on the console: QEMU accepts connections long before anybody inside does."""
        with suppress(OSError):
            return b"Server listening on" in Path(f"/proc/{process.pid}/cwd/console").read_bytes()
        return False

    def command(self, lab: LabState, device: LabDevice, process: ProcessId, command: Sequence[str]) -> list[str]:
        key = ["-i", str(lab.folder / "identity"), "-o", "IdentitiesOnly=yes"]
        # The way there leaves neither the namespace nor the process.
        trust = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={os.devnull}", "-o", "LogLevel=ERROR"]
        ssh = ["ssh", "-F", "none", *key, *trust, "-p", str(_CONSOLE_PORT), f"root@{LOOPBACK}"]
        inside = ["/usr/bin/env", "-i", f"PATH={SEARCH_PATH}", "HOME=/root", "TERM=dumb", *command]
        return ["nsenter", f"--target={process.pid}", "--net", "--", *ssh, shlex.join(inside)]


def own_files(machine: Machine) -> Iterator[Entry]:
    """What belongs to one device only; `machine_init.sh` puts it in place."""
    yield file("init", _INIT.read_bytes(), 0o755)
    yield from (folder(name) for name in ("device", "device/etc", "device/run", "device/run/console"))
    yield file("device/disk_blocks", f"{min(machine.disk_bytes, FREE_BYTES) // BLOCK_BYTES}\n".encode())
    yield file("device/run/edge-deploy-emulated", f"{LABEL}\n".encode())
    yield file("device/run/console/sshd_config", _CONSOLE.encode())
    yield from entries_of(machine.folder / "ssh/ssh_host_ed25519_key", "device/run/console/key")
    yield from entries_of(machine.folder / "ssh/authorized_keys", "device/run/console/authorized_keys")
    yield file("device/etc/hostname", f"{machine.hostname}\n".encode())
    yield file("device/etc/hosts", f"{LOOPBACK} localhost\n127.0.1.1 {machine.hostname}\n".encode())
    for name in ("passwd", "group", "shadow", "ssh"):
        yield from entries_of(machine.folder / name, f"device/etc/{name}")


def command_line(machine: Machine, image: MachineImage) -> list[str]:
    """QEMU's. Nothing of it can be reached but two ports, and nothing outside from inside."""
    ports = f"hostfwd=tcp:{machine.address}:22-:22,hostfwd=tcp:{LOOPBACK}:{_CONSOLE_PORT}-:{_CONSOLE_PORT}"
    settings = {
        "-machine": "virt",
        "-cpu": "cortex-a72",  # of a Raspberry Pi 4, as far as instructions go
        "-smp": "1",
        "-accel": "tcg,thread=single,tb-size=128",  # MiB of translated code; left alone it grows to 1 GiB
        # With sleep=off time would jump whenever the machine waits, and end all that has a time-out.
        "-icount": "shift=1,align=off,sleep=on",
        "-m": str(_MEMORY_MIB),
        "-kernel": str(image.kernel),
        "-initrd": "initrd",
        "-append": _KERNEL_OPTIONS,
        # Writes go to a temporary file that has no name.
        "-drive": f"file={image.disk},if=none,id=disk,format=raw,cache=unsafe,snapshot=on",
        "-netdev": f"user,id=network,ipv6=off,restrict=on,{ports}",
        "-chardev": "file,id=console,path=console,logfile=/proc/self/fd/1,logappend=on",
        "-serial": "chardev:console",
        "-display": "none",
        "-monitor": "none",
    }
    words = [word for pair in settings.items() for word in pair]
    devices = ["-device", "virtio-blk-device,drive=disk", "-device", "virtio-net-device,netdev=network"]
    return ["qemu-system-aarch64", "-nodefaults", "-no-user-config", "-no-reboot", *words, *devices]
