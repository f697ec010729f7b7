"""What is known of a lab from outside: its folder, its devices, its processes. Reading it needs no root.

/run/edge-deploy-lab/NAME/lab.json       this module's records
                         /identity       the key that logs in everywhere, with known_hosts beside it
                         /control        the keeper's socket: one JSON line in, one out
                         /keeper.log, DEVICE.log
                         /DEVICE/        what becomes /etc/ssh and friends of the device
"""

import json
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, Self

from targets.errors import EnvironmentFault, UsageError
from targets.records import TargetSpec

Service = Literal["ssh", "adb"]

RUNTIME = Path("/run/edge-deploy-lab")
PORTS: Mapping[Service, int] = {"ssh": 22, "adb": 5555}
USER = "pi"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process that cannot be confused with a later one of the same number."""

    pid: int
    started: int  # clock ticks after boot

    @classmethod
    def of(cls, pid: int) -> Self:
        """Raises ProcessLookupError when there is none, or only its zombie."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            raise ProcessLookupError(pid) from None
        # The name, in brackets, may contain anything; after it come the 3rd field, the state, and all others.
        fields = stat.rpartition(")")[2].split()
        if fields[0] in "ZX":
            raise ProcessLookupError(pid)
        return cls(pid=pid, started=int(fields[19]))

    def alive(self) -> bool:
        try:
            return ProcessId.of(self.pid) == self
        except ProcessLookupError:
            return False

    def signal(self, number: int) -> None:
        """Send a signal to this process, never to another one that got its number."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive():
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabDevice:
    """One device as planned; it keeps name, keys, address and port over reboots."""

    name: str
    kind: str  # of `targets.lab.kinds`
    service: Service
    address: str  # inside the lab's own network
    port: int  # on this machine's loopback, forwarded to the service's port of the address
    python: str  # interpreter on the device that has the runtimes
    disk_bytes: int
    profile: str = ""  # of profiles.toml

    @property
    def service_port(self) -> int:
        return PORTS[self.service]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabState:
    """A lab that was started. Whether it still runs is another question: `keeper.alive()`."""

    name: str
    keeper: ProcessId
    devices: tuple[LabDevice, ...]
    processes: dict[str, ProcessId]  # device -> the first process inside it; missing while it reboots
    resources: dict[str, str] = field(default_factory=dict)  # kind → the folder that its devices start from
    lacking: dict[str, str] = field(default_factory=dict)  # device → what this machine could not give it, and why

    @property
    def folder(self) -> Path:
        return lab_folder(self.name)

    def device(self, name: str) -> LabDevice:
        """Raises UsageError for a name that the lab does not have."""
        for device in self.devices:
            if device.name == name:
                return device
        known = ", ".join(device.name for device in self.devices)
        raise UsageError(f"{name}: not a device of lab {self.name}", hint=f"it has: {known}")

    def target_specs(self) -> tuple[TargetSpec, ...]:
        """The devices as targets, with the lab's keys; nothing of the user's own ~/.ssh takes part."""
        return tuple(self._spec(device) for device in self.devices)

    def _spec(self, device: LabDevice) -> TargetSpec:
        if device.service == "adb":
            return TargetSpec(name=device.name, transport="adb", host=LOOPBACK, port=device.port)
        return TargetSpec(
            name=device.name,
            transport="ssh",
            host=LOOPBACK,
            port=device.port,
            user=USER,
            identity_file=str(self.folder / "identity"),
            known_hosts=str(self.folder / "known_hosts"),
            ssh_config=os.devnull,
            python=device.python,
        )

    def save(self) -> None:
        """Replace lab.json at once, so that whoever reads sees the old state or the new one."""
        path = self.folder / "lab.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        part.replace(path)


def lab_folder(name: str) -> Path:
    """Raises UsageError for a name that could not be a folder or a host name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
        raise UsageError(f"{name!r} cannot name a lab", hint="use up to 31 lower-case letters, digits and dashes")
    return RUNTIME / name


def load_lab(name: str) -> LabState:
    """Raises EnvironmentFault when there is no such lab, or only what a crash has left of one."""
    path = lab_folder(name) / "lab.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return LabState(
            name=raw["name"],
            keeper=ProcessId(**raw["keeper"]),
            devices=tuple(LabDevice(**device) for device in raw["devices"]),
            processes={device: ProcessId(**process) for device, process in raw["processes"].items()},
            resources=raw["resources"],
            lacking=raw["lacking"],
        )
    except FileNotFoundError:
        known = ", ".join(lab_names())
        hint = "start it with `deploy lab up --ssh 3`" + (f"; there are: {known}" if known else "")
        raise EnvironmentFault(f"there is no lab {name!r}", hint=hint) from None
    except PermissionError:
        raise EnvironmentFault(f"lab {name!r} belongs to another user", hint="use sudo") from None
    except (ValueError, KeyError, TypeError) as fault:
        raise EnvironmentFault(f"{path} is damaged: {fault}", hint=f"deploy lab down --name {name}") from None


def running_lab(name: str) -> LabState:
    """The lab, whose keeper runs; raises EnvironmentFault."""
    lab = load_lab(name)
    if not lab.keeper.alive():
        hint = f"deploy lab down --name {name}, then start it again; {lab.folder}/keeper.log may say why"
        raise EnvironmentFault(f"lab {name!r} is not running any more", hint=hint)
    return lab


def lab_names() -> list[str]:
    """Every lab that has a folder, running or not."""
    try:
        return sorted(path.name for path in RUNTIME.iterdir() if path.is_dir())
    except OSError:
        return []
