"""The kinds of devices, one module each."""

from collections.abc import Mapping

from targets.errors import UsageError
from targets.lab.kind import Kind
from targets.lab.kinds.adbd import ScriptedPhone
from targets.lab.kinds.android import AndroidDevice
from targets.lab.kinds.board import Arm64Board, ArmhfBoard
from targets.lab.kinds.machine import VirtualMachine
from targets.lab.kinds.ssh import SshHost

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (SshHost(), Arm64Board(), ArmhfBoard(), VirtualMachine(), AndroidDevice(), ScriptedPhone())
}


def load_kind(name: str) -> Kind:
    """Raises UsageError for a kind that there is not."""
    if name not in KINDS:
        raise UsageError(f"{name}: no kind of device", hint=f"there are {', '.join(KINDS)}")
    return KINDS[name]
