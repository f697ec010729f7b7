"""Whether two measurements may be compared at all."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.measuring.records import Session
from targets.errors import DeployError

# What must be alike, and how it is called.
_FACTS = ("arch", "cpu_model", "cpu_count")


class Incomparable(DeployError):
    """Numbers of two things were taken under different conditions."""

    code, exit_code = "incomparable", 4

    def __init__(self, target: str, unlike: Sequence[str]) -> None:
        super().__init__(
            f"{target}: A and B ran under different conditions: {'; '.join(unlike)}",
            hint="make them alike and measure again, or compare all the same with --force",
        )


def mismatches(session: Session) -> list[str]:
    """Why its A does not compare with its B, which ran in turns on one device; empty when they do. Pure.

    Models of two formats have two runtimes, and of two precisions perhaps two delegates: that is what was asked for.
    """
    one, other = (replace(session, blocks=session.of(label), models={"A": ""}) for label in ("A", "B"))
    found = differences(one, other, same_device=True)
    of_runtimes = {block.measurement.runtime for block in session.blocks}
    theirs = ("delegates:", "runtimes:") if len(of_runtimes) > 1 else ("delegates:",)
    return [text for text in found if not text.startswith(theirs)]


def differences(one: Session, other: Session, *, same_device: bool) -> list[str]:
    """Why their numbers do not compare; empty when they do. Pure.

    Another release on the same device is the question itself; another device, runtime, governor, number of threads or
    set of cores is another question.
    """
    found = []
    if same_device and one.target != other.target:
        found.append(f"devices: {one.target} and {other.target}")
    for name in _FACTS:
        ours, theirs = getattr(one.facts, name), getattr(other.facts, name)
        if ours != theirs:
            found.append(f"{name.replace('_', ' ')}: {ours} and {theirs}")
    if one.mode != other.mode:
        found.append(f"mode: {one.mode} and {other.mode}")
    for what, ours, theirs in (
        ("runtimes", _runtimes(one), _runtimes(other)),
        ("threads", _seen(one, "threads"), _seen(other, "threads")),
        ("governor", _condition(one, "governor_before"), _condition(other, "governor_before")),
        ("cores", _condition(one, "cpus_allowed"), _condition(other, "cpus_allowed")),
        ("delegates", _seen(one, "delegate"), _seen(other, "delegate")),
    ):
        if ours != theirs:
            found.append(f"{what}: {_shown(ours)} and {_shown(theirs)}")
    return found


def _runtimes(session: Session) -> set[str]:
    return {f"{b.measurement.runtime} {b.measurement.runtime_version}" for b in session.blocks}


def _seen(session: Session, field: str) -> set[str]:
    return {str(getattr(block.measurement, field)) for block in session.blocks}


def _condition(session: Session, key: str) -> set[str]:
    return {block.measurement.conditions[key] for block in session.blocks if key in block.measurement.conditions}


def _shown(values: set[str]) -> str:
    return " or ".join(sorted(value or "none" for value in values)) or "unknown"
