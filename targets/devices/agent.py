"""A device on which our agent runs, in its Python."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from targets.agent.session import Session, open_session
from targets.delivery import Store, digest_hex
from targets.device import Device
from targets.devices.agent_releases import AgentReleases
from targets.glance import Glance, glance
from targets.metering import metering
from targets.parts import Distances, Way, WholeWay, decode_distances, decode_way
from targets.records import Absent, BenchRequest, Facts, Measurement, Profile
from targets.transport import Transport
from targets.wire import decode_facts, decode_measurement, decode_profile

# The agent ends a benchmark at its deadline and says so; only when it cannot do that either, the host gives up.
REPLY_GRACE_S = 15.0


class AgentDevice(Device):
    """Everything is asked of the agent, which is started when it is first needed."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport.spec, transport)
        self._opened: Session | None = None

    @property
    def _session(self) -> Session:
        if self._opened is None:
            self._opened = open_session(self._transport)
        return self._opened

    @property
    def _store(self) -> Store:
        return self._session

    def glance(self) -> Glance | None:
        return glance(self._transport)

    @property
    def over(self) -> bool:
        return self._opened is not None and self._opened.over

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._transport.close()

    @property
    def releases(self) -> AgentReleases:
        return AgentReleases(self._session)

    def facts(self) -> Facts:
        return decode_facts(self.spec.name, self._session.request("facts", self.spec.step_timeout_s))

    def profile(self, request: BenchRequest, deadline_s: float, files: Mapping[str, Path] | None = None) -> Profile:
        reply = self._session.request(
            "bench", deadline_s + REPLY_GRACE_S, {**_fields(request, deadline_s), "profile": True}
        )
        return decode_profile(self.spec.name, request, reply)

    def whole_way(self, request: BenchRequest, way: Way, deadline_s: float) -> WholeWay:
        told = {"kind": way.kind, "steps": way.steps, "tensor": way.tensor, "outputs": way.outputs}
        files = {"raw": digest_hex(way.raw), "given": digest_hex(way.given)}
        fields = {**_fields(request, deadline_s), **files, "pipeline": told}
        return decode_way(self.spec.name, self._session.request("bench", deadline_s + REPLY_GRACE_S, fields))

    def distances(self, request: BenchRequest, deadline_s: float) -> Distances:
        fields = {**_fields(request, deadline_s), "distances": True}
        return decode_distances(self.spec.name, self._session.request("bench", deadline_s + REPLY_GRACE_S, fields))

    def try_runtimes(self) -> Mapping[str, str]:
        told = self._session.request("try-runtimes", self.spec.step_timeout_s)
        return {str(name): str(trouble) for name, trouble in told.items()}

    def bench(self, request: BenchRequest, deadline_s: float, files: Mapping[str, Path] | None = None) -> Measurement:
        sources = self.facts().power_sources if request.energy else ()
        meter = metering(self.spec.name, self.spec.meter, request.energy, sources)
        power: dict[str, Any] = {}
        if not isinstance(meter, Absent):
            meter.begin()
            power = {"power": {**asdict(meter.plan), "reading": meter.reading()}}
            deadline_s += meter.lasts_s()
        fields = {**_fields(request, deadline_s), **power}
        reply = self._session.request("bench", deadline_s + REPLY_GRACE_S, fields)
        found = decode_measurement(self.spec.name, request, reply, meter)
        return replace(found, conditions={**found.conditions, **self._transport.context()})

    def provision(self, environment: str, wheels: Mapping[str, str]) -> Mapping[str, Any]:
        fields = {"env": environment, "wheels": sorted(wheels.items())}
        return self._session.request("provision", self.spec.step_timeout_s, fields)


def _fields(request: BenchRequest, deadline_s: float) -> dict[str, Any]:
    roles = {role: digest_hex(getattr(request, role)) for role in ("blob", "inputs", "expected")}
    return {**asdict(request), **roles, "deadline_s": deadline_s}


def open_device(transport: Transport) -> Device:
    """The device; its agent is put there, if it is not there, and started by `begin` or the first request."""
    return AgentDevice(transport)
