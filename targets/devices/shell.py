"""A device with a shell and no Python, as stock Android is: a runner of ours or of the user measures there."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from targets.delivery import digest_hex
from targets.device import Device
from targets.devices.shell_facts import FACTS, QUIET_CONDITIONS, parse_conditions, parse_facts, sections
from targets.devices.shell_power import sampled
from targets.devices.shell_releases import ShellReleases
from targets.devices.shell_session import ShellSession
from targets.devices.turn import turn
from targets.errors import AgentFailed, InputError, NoRuntime, UsageError
from targets.metering import metering
from targets.records import Absent, BenchRequest, Facts, Measurement
from targets.releases import Releases
from targets.runner import Runner
from targets.runners import load_runner
from targets.transport import Transport
from targets.transports.adb import AdbTransport
from targets.wire import decode_facts, decode_measurement


class ShellDevice(Device):
    """Everything is done by the device's own commands, and benchmarks by the runner."""

    def __init__(self, transport: Transport, session: ShellSession, runner: Runner | None) -> None:
        super().__init__(transport.spec, transport, session)
        self._session = session
        self._runner = runner

    @property
    def releases(self) -> Releases:
        return ShellReleases(self._session)

    def facts(self) -> Facts:
        name = self.spec.name
        text = self._session.script(FACTS, self._session.root, doing="asking for its facts")
        try:
            wire = parse_facts(text)
        except (KeyError, ValueError, IndexError) as fault:
            raise AgentFailed(f"{name}: its facts cannot be read ({fault!r})") from fault
        if self._runner:
            wire["runtimes"] = self._runner.runtimes(self._session)
        return decode_facts(name, wire)

    def bench(self, request: BenchRequest, deadline_s: float, files: Mapping[str, Path] | None = None) -> Measurement:
        name, session = self.spec.name, self._session
        if self._runner is None:
            hint = "install a package with a runner (entry point edge_deploy.runners), or set `python:` if it has one"
            raise NoRuntime(f"{name}: nothing here can run a model on a device without Python", hint=hint)
        if files is None or not files.keys() >= request.files.keys():
            raise InputError(f"{name}: a device without Python needs the host's copies of the model and the sample")
        facts = self.facts()
        meter = metering(name, self.spec.meter, request.energy, facts.power_sources)
        if isinstance(meter, Absent):
            request, reading = replace(request, energy=None), None
        else:
            meter.begin()
            request, reading = replace(request, energy=meter.plan), meter.reading()
            deadline_s += meter.lasts_s()
        session.check({role: digest_hex(digest) for role, digest in request.files.items()})
        with turn(session, deadline_s) as waited_s:
            seen = self._conditions("before")
            with sampled(session, reading) as readings:
                result = dict(self._runner.bench(session, request, files, max(1.0, deadline_s - waited_s)))
            seen |= self._conditions("after")
        if waited_s >= 1:
            seen["waited_for_other_benchmark_s"] = f"{waited_s:.0f}"
        if facts.emulated:
            seen["emulated"] = facts.emulated
        result |= {"conditions": {**seen, **result["conditions"]}, "readings": readings}
        return decode_measurement(name, request, result, meter)

    def _conditions(self, moment: str) -> dict[str, str]:
        text = self._session.script(QUIET_CONDITIONS, doing="asking for its conditions")
        return {f"{key}_{moment}": value for key, value in parse_conditions(sections(text)).items()}


def open_device(transport: Transport) -> Device:
    """Open a session with the device's shell."""
    if not isinstance(transport, AdbTransport):
        raise UsageError(f"{transport.spec.name}: {transport.spec.transport} reaches no shell", hint="set `python:`")
    kind = load_runner(transport.spec.runner)
    runner = kind(transport.spec) if kind else None
    return ShellDevice(transport, ShellSession(transport), runner)
