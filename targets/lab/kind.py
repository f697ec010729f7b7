"""The seam for kinds of devices: what a lab asks of each of them."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from targets.lab.boot import SEARCH_PATH, Machine
from targets.lab.identity import write_device_folder
from targets.lab.power.sensors import SensorSet
from targets.lab.state import LabDevice, LabState, ProcessId, Service

Say = Callable[[str], None]  # told what takes long, for whoever waits


class Kind(ABC):
    """One kind of device. Importing its module loads nothing heavy: `deploy lab doctor` asks all of them."""

    name: ClassVar[str]  # as in `deploy lab up --NAME 3` and in lab.json
    title: ClassVar[str]  # in the plural
    says: ClassVar[str]  # what they are made of
    programs: ClassVar[Mapping[str, str]]  # program or file → the Debian package that has it
    stem: ClassVar[str]  # devices are called STEM-0, STEM-1 …
    profile: ClassVar[str] = ""  # of profiles.toml, unless another is asked for; empty: it has none
    service: ClassVar[Service] = "ssh"  # what is forwarded to a loopback port of this machine
    python: ClassVar[str] = ""  # interpreter on the device that has the runtimes
    disk: ClassVar[str] = "/"  # the mount on the device that its user writes to
    own_kernel: ClassVar[bool] = False  # whether its processes are out of this machine's sight
    start_s: ClassVar[float] = 30.0  # longest it may take from its start until its service answers

    def prepare(self, say: Say) -> str:
        """Get what devices of this kind start from; the folder it is in, handed to `boot`.

        Raises EnvironmentFault.
        """
        return ""

    def environment(self, device: LabDevice) -> dict[str, str]:
        """What every program on the device must find in its environment."""
        return {}

    def sensors(self, device: LabDevice) -> SensorSet | None:
        """What tells of its power and heat; None: nothing does."""
        return None

    def write_folder(self, folder: Path, device: LabDevice, authorized: str) -> None:
        """Write what makes a device itself; `authorized` is the public key that logs in."""
        write_device_folder(folder, authorized, self.environment(device))

    @abstractmethod
    def boot(self, machine: Machine, device: LabDevice, resources: Path) -> None:
        """Become the device, in a process just forked and in namespaces of its own; never returns."""

    def ready(self, device: LabDevice, process: ProcessId) -> bool:
        """Whether its service answers; asked every few milliseconds, from inside the lab's own network."""
        return listens(process.pid, device.service_port)

    def command(self, lab: LabState, device: LabDevice, process: ProcessId, command: Sequence[str]) -> list[str]:
        """The command line of this machine that runs a command on the device as root, by no service of its own."""
        kinds = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd")
        variables = {"PATH": SEARCH_PATH, "HOME": "/root", "TERM": "dumb", **self.environment(device)}
        pairs = [f"{key}={value}" for key, value in variables.items()]
        enter = [shutil.which("nsenter") or "nsenter", f"--target={process.pid}", *kinds, "--"]
        return ["/usr/bin/env", "-i", *pairs, *enter, *command]  # this machine's `env`: an emulated one is slower


def listens(pid: int, port: int) -> bool:
    """Whether something waits at the port in the network of the process; costs no connection."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            rows = Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
            if any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == "0A" for row in rows):
                return True
    return False
