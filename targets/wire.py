"""The agent's JSON, decoded into records; what does not fit the schema is refused, never repaired."""

from collections.abc import Mapping
from typing import Any

from targets.errors import AgentFailed
from targets.metering import NOT_ASKED, Metering, power_sources
from targets.records import Absent, Answer, BenchRequest, Facts, Measurement, OpTime, Profile

Json = Mapping[str, Any]
_NOT_ASKED = Absent(reason=NOT_ASKED)


def _or_absent(value: Any, kind: type[Any], reason: str) -> Any:
    return Absent(reason=reason) if value is None else kind(value)


def decode_facts(target: str, wire: Json) -> Facts:
    """Facts from the reply to `facts`; raises AgentFailed when the reply is out of protocol."""
    try:
        sources = power_sources({str(path): str(text) for path, text in wire["sensors"].items()})
        return Facts(
            target=target,
            arch=str(wire["arch"]),
            cpu_model=str(wire["cpu_model"]),
            cpu_features=tuple(str(feature) for feature in wire["cpu_features"]),
            cpu_count=int(wire["cpu_count"]),
            os=str(wire["os"]),
            kernel=str(wire["kernel"]),
            libc=str(wire["libc"]),
            python=str(wire["python"]),
            runtimes={str(name): str(version) for name, version in wire["runtimes"].items()},
            governor=_or_absent(wire["governor"], str, f"no frequency governor is visible on {target}"),
            free_disk_bytes=int(wire["free_disk_bytes"]),
            total_memory_bytes=_or_absent(wire["total_memory_bytes"], int, f"no MemTotal on {target}"),
            available_memory_bytes=_or_absent(wire["available_memory_bytes"], int, f"no MemAvailable on {target}"),
            temperature_c=_or_absent(wire["temperature_c"], float, f"no thermal zone on {target}"),
            meters=tuple(source.meter for source in sources),
            emulated=str(wire["emulated"]),
            conditions={str(key): str(value) for key, value in wire.get("conditions", {}).items()},
            power_sources=sources,
            executable=str(wire.get("executable", "")),
            numpy=str(wire.get("numpy", "")),
            page_bytes=int(wire.get("page_bytes", 0)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise AgentFailed(f"{target}: the agent's facts are out of protocol ({fault!r})") from fault


def decode_measurement(
    target: str, request: BenchRequest, wire: Json, metering: Metering | Absent = _NOT_ASKED
) -> Measurement:
    """A measurement from the reply to `bench`; raises AgentFailed when the reply is out of protocol."""
    no_peak = f"the kernel of {target} reports no VmHWM"
    try:
        return Measurement(
            target=target,
            blob=request.blob,
            runtime=str(wire["runtime"]),
            runtime_version=str(wire["runtime_version"]),
            delegate=str(wire["delegate"]),
            threads=request.threads,
            load_ns=int(wire["load_ns"]),
            first_ns=int(wire["first_ns"]),
            warmup_ns=tuple(int(sample) for sample in wire["warmup_ns"]),
            warm_ns=tuple(int(sample) for sample in wire["warm_ns"]),
            load_peak_rss_bytes=_or_absent(wire["load_peak_rss_bytes"], int, no_peak),
            peak_rss_bytes=_or_absent(wire["peak_rss_bytes"], int, no_peak),
            energy=metering if isinstance(metering, Absent) else metering.trace(wire),
            answer=Answer(max_steps=float(wire["max_steps"]), finite=bool(wire["finite"])),
            conditions={str(key): str(value) for key, value in wire["conditions"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise AgentFailed(f"{target}: the agent's measurement is out of protocol ({fault!r})") from fault


def decode_profile(target: str, request: BenchRequest, wire: Json) -> Profile:
    """A profile from the reply to `bench` that asked for one; raises AgentFailed when it is out of protocol."""
    try:
        untold = str(wire.get("untold", "")) or "the runtime tells no time of single ops"
        return Profile(
            target=target,
            blob=request.blob,
            runtime=str(wire["runtime"]),
            runtime_version=str(wire["runtime_version"]),
            delegate=str(wire["delegate"]),
            runs=int(wire["runs"]),
            ops=tuple(
                OpTime(
                    name=str(op["name"]),
                    op=str(op["op"]),
                    dtypes=tuple(map(str, op["dtypes"])),
                    where=str(op["where"]),
                    us=_or_absent(op["us"], float, untold),
                )
                for op in wire["ops"]
            ),
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise AgentFailed(f"{target}: the agent's profile is out of protocol ({fault!r})") from fault
