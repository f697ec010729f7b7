"""faults.yaml: everything it may say. Its JSON Schema is generated from these models."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from pipeline.config import Bytes, Seconds, Section, quantity
from pipeline.errors import UsageError, nearest
from pipeline.quantities import parse_quantity, size
from pipeline.stages import STAGES
from pipeline.yaml_file import read_yaml, validated
from targets.lab.faults import FAULTS
from targets.lab.kinds import KINDS

Share = Annotated[
    float,
    quantity("share"),
    Field(gt=0, le=1),
    WithJsonSchema({"type": ["string", "number"], "description": "as 10 %"}),
]


def parse_fault(text: str) -> tuple[str, float | None]:
    """A fault as people write it, such as `cut-after=4MB` or `clock=-3d`: its name, and its value in bytes, seconds,
    kelvin or a share of 1.

    Raises UsageError.
    """
    kind, given, written = text.partition("=")
    if kind not in FAULTS:
        raise UsageError(f"{kind}: no fault of the lab{nearest(kind, FAULTS)}", hint=f"there are {', '.join(FAULTS)}")
    fault = FAULTS[kind]
    if not given:
        if fault.dimension and fault.default is None:
            raise UsageError(f"{kind} needs a value in {fault.dimension}", hint=f"write {kind}=…")
        return kind, None
    if not fault.dimension:
        raise UsageError(f"{kind} takes no value", hint=f"write {kind}")
    sign = -1 if fault.signed and written.startswith("-") else 1
    value = sign * parse_quantity(written.removeprefix("-") if sign < 0 else written, fault.dimension)
    if fault.dimension == "share" and value > 1:
        raise UsageError(f"{text}: more than all", hint=f"write at most {kind}=100%")
    return kind, value


def fault_text(kind: str, value: float | None) -> str:
    """The inverse of `parse_fault`: as one would type it, rounded."""
    dimension = FAULTS[kind].dimension
    if value is None or not dimension:
        return kind
    if dimension == "bytes":
        written = size(value).replace(" ", "")
    elif dimension == "s":
        written = _seconds(value)
    else:
        written = f"{100 * value:g}%" if dimension == "share" else f"{value:g}K"
    return f"{kind}={written}"


def _seconds(value_s: float) -> str:
    for unit, unit_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if value_s and value_s % unit_s == 0:
            return f"{value_s / unit_s:g}{unit}"
    return f"{value_s:g}s" if abs(value_s) >= 1 else f"{value_s * 1000:g}ms"


def _fault(value: object) -> str:
    try:
        parse_fault(str(value))
    except UsageError as error:
        raise ValueError(f"{error.message}; {error.hint}") from None
    return str(value)


class LabSection(Section):
    """The devices to start; without it the rehearsal needs `--targets-from` a running lab."""

    counts: dict[str, int] = Field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    disk: Bytes = 256e6


def _lab(value: object) -> object:
    """`{ssh: 20, arm64: 2, profiles: [rpi5]}`: the kinds stand beside the other keys."""
    if not isinstance(value, dict):
        raise ValueError("should say how many devices of which kind, as {ssh: 20, arm64: 2}")
    counts = {key: number for key, number in value.items() if key in KINDS}
    for key, number in counts.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ValueError(f"{key} should be a number of devices, not {number!r}")
    others = {key: found for key, found in value.items() if key not in KINDS}
    if unknown := others.keys() - {"profiles", "disk"}:
        raise ValueError(f"unknown key {min(unknown)!r}; here there are {', '.join(KINDS)}, profiles, disk")
    return {"counts": counts, **others}


class Chosen(Section):
    """Some devices of the lab, drawn with the schedule's seed."""

    share: Share | None = Field(default=None, description="of the devices of that kind, at least one")
    count: int | None = Field(default=None, ge=1, description="so many of them")
    kind: str | None = Field(default=None, description="only devices of this kind")


def _stage(name: str) -> str:
    if name not in STAGES:
        raise ValueError(f"should be a stage: {', '.join(STAGES)}{nearest(name, STAGES)}")
    return name


Stage = Annotated[str, AfterValidator(_stage), WithJsonSchema({"type": "string", "enum": list(STAGES)})]


def _on(value: object) -> object:
    """Choosing the model here gives errors about what was meant only."""
    if isinstance(value, dict):
        return Chosen.model_validate(value)
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("should be a device, a list of devices, `all`, or {share, count, kind}")
    return value


class When(Section):
    """Conditions that are waited for one after the other; none: from the start of the run."""

    step: Stage | None = Field(default=None, description="a stage begins; push and measure: that of the device itself")
    after: Seconds | None = Field(default=None, description="so long after that")
    within: Seconds | None = Field(default=None, description="at a random moment of so long a time after that")
    bytes: Bytes | None = Field(default=None, description="once so much has passed the device's link since then")


def _when(value: object) -> object:
    return value if isinstance(value, dict | When) else {"after": value}


class Entry(Section):
    """One fault, on one or several devices."""

    on: Annotated[str | list[str] | Chosen, BeforeValidator(_on)] = Field(
        description="a device, a list of them, `all`, or {share, count, kind}"
    )
    fault: Annotated[str, BeforeValidator(_fault)] = Field(description="as for `deploy lab fault`: cut-after=4MB")
    when: Annotated[When, BeforeValidator(_when)] = When()
    restore_after: Seconds | None = Field(default=None, description="mend it after so long; default: at the end")


class Schedule(Section):
    """All of faults.yaml."""

    lab: Annotated[LabSection, BeforeValidator(_lab)] | None = None
    seed: int = Field(default=0, description="of everything random; the same seed draws the same faults")
    faults: list[Entry] = Field(min_length=1)


def load_schedule(path: Path) -> Schedule:
    """Read faults.yaml; raises UsageError with `file:line: key: reason`."""
    raw = read_yaml(path, missing_hint="give one with --faults FILE; `deploy schema faults` prints all keys")
    return validated(path, raw, Schedule, hint="`deploy schema faults` prints all keys, `deploy lab fault` all faults")


def faults_schema() -> dict[str, Any]:
    """JSON Schema of faults.yaml, for completion in editors."""
    described = Schedule.model_json_schema()
    counts = {"type": "integer", "minimum": 0}
    lab = described["$defs"]["LabSection"]["properties"]
    del lab["counts"]
    lab |= {name: {**counts, "description": kind.title} for name, kind in KINDS.items()}
    described["$defs"]["Entry"]["properties"]["when"] = {
        "anyOf": [{"$ref": "#/$defs/When"}, {"type": ["string", "number"], "description": "so long after the start"}]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described, "title": "faults.yaml"}
