"""Giving a device its own environment: the wheels go over as blobs, the agent unpacks and tries them."""

from collections.abc import Mapping
from dataclasses import dataclass

from targets.device import Device
from targets.errors import NoRuntime
from targets.records import Facts
from targets.wheels import Lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What importing one runtime did on the device."""

    ok: bool
    version: str = ""
    signal: str = ""  # such as SIGILL
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    """One device's environment as it is now."""

    target: str
    environment: str
    python: str  # its interpreter, on the device
    made: bool  # False: it was there already
    sent_bytes: int
    runtimes: Mapping[str, str]
    given_up: tuple[str, ...]  # better packages that cannot be had there, and why


def provision(device: Device, facts: Facts, lock: Lock) -> Provisioned:
    """Bring what is missing, make the environment, and put it into use once every runtime in it imports.

    Raises NoRuntime when an import fails (the device keeps what it used before), and what a push raises.
    """
    sent = 0
    for name, digest in lock.wheels.items():
        path = lock.folder / name
        if device.push(path, digest):
            sent += path.stat().st_size
    told = device.provision(lock.digest, lock.wheels)
    imports = {name: Imported(**result) for name, result in told["imports"].items()}
    if broken := {name: result for name, result in imports.items() if not result.ok}:
        hint = (
            "try another version: deploy targets provision --package 'onnxruntime==1.20.1'; what it used before is kept"
        )
        raise NoRuntime(_explained(facts, broken), hint=hint)
    return Provisioned(
        target=facts.target,
        environment=lock.digest,
        python=str(told["python"]),
        made=bool(told["made"]),
        sent_bytes=sent,
        runtimes={name: result.version for name, result in imports.items()},
        given_up=lock.given_up,
    )


def _explained(facts: Facts, broken: Mapping[str, Imported]) -> str:
    name, result = next(iter(broken.items()))
    if result.signal == "SIGILL":
        features = " ".join(facts.cpu_features) or "none of note"
        return (
            f"{facts.target}: importing {name} is an illegal instruction on its {facts.cpu_model}: the wheel was built "
            f"for a newer CPU (this one has {features})"
        )
    how = f"was killed by {result.signal}" if result.signal else "failed"
    return f"{facts.target}: importing {name} there {how}: {result.said or 'no reason given'}"
