"""Records of what an agent runs besides benchmarks: the whole pipeline in parts, and outputs against the host's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from targets.errors import AgentFailed
from targets.records import Absent


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From a sample's bytes to the model's answer, as the agent is told it; files are on the device already."""

    raw: str  # SHA-256 of the sample's own file
    given: str  # SHA-256 of an .npz with the host's arrays: "decode", and "step0" … of the steps that need Pillow
    kind: str  # "image", "array" (.npy), or "" when only the host can make an array of it
    steps: tuple[Mapping[str, Any], ...]  # {name: options}, every option spelled out
    tensor: Mapping[str, Any]  # dtype, scale, zero_point, batch of the model's input
    outputs: tuple[Mapping[str, Any], ...]  # scale, zero_point of each output


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the way."""

    name: str
    us: float | Absent  # median of the runs after the first


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeWay:
    """How long each part of the way takes on one device, and whether it ends where the host's does."""

    target: str
    runtime: str
    runtime_version: str
    delegate: str
    runs: int
    parts: tuple[Part, ...]
    input_steps: float | Absent  # the model's input made there against the host's, in steps as of `Answer`

    @property
    def known_us(self) -> float:
        """All parts that could be timed."""
        return sum(part.us for part in self.parts if isinstance(part.us, float))


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """One output against the host's, in steps as of `Answer`."""

    steps: float
    finite: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """Every output of one model, in its own order."""

    target: str
    runtime: str
    runtime_version: str
    delegate: str
    outputs: tuple[Distance, ...]


def decode_way(target: str, wire: Mapping[str, Any]) -> WholeWay:
    """From the reply to `bench` with a pipeline; raises AgentFailed when it is out of protocol."""
    try:
        apart = wire["input_steps"]
        return WholeWay(
            target=target,
            runtime=str(wire["runtime"]),
            runtime_version=str(wire["runtime_version"]),
            delegate=str(wire["delegate"]),
            runs=int(wire["runs"]),
            parts=tuple(
                Part(
                    name=str(part["name"]),
                    us=Absent(reason=str(part["missing"])) if part["us"] is None else float(part["us"]),
                )
                for part in wire["parts"]
            ),
            input_steps=Absent(reason="it holds NaN or infinity") if apart is None else float(apart),
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise AgentFailed(f"{target}: the agent's pipeline is out of protocol ({fault!r})") from fault


def decode_distances(target: str, wire: Mapping[str, Any]) -> Distances:
    """From the reply to `bench` with `distances`; raises AgentFailed when it is out of protocol."""
    try:
        return Distances(
            target=target,
            runtime=str(wire["runtime"]),
            runtime_version=str(wire["runtime_version"]),
            delegate=str(wire["delegate"]),
            outputs=tuple(
                Distance(steps=float(found["steps"]), finite=bool(found["finite"])) for found in wire["outputs"]
            ),
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise AgentFailed(f"{target}: the agent's distances are out of protocol ({fault!r})") from fault
