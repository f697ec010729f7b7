"""A device with a shell and no Python, as stock Android is: a runner of ours or of the user measures there."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from targets.delivery import Store, digest_hex
from targets.device import Device
from targets.devices.app_folder import AppFolder
from targets.devices.fixed_performance import fixed_performance
from targets.devices.shell_facts import FACTS, QUIET_CONDITIONS, parse_conditions, parse_facts, sections
from targets.devices.shell_load import parse_load
from targets.devices.shell_power import sampled
from targets.devices.shell_releases import ShellReleases
from targets.devices.shell_session import ShellSession
from targets.devices.turn import turn
from targets.errors import AgentFailed, InputError, UsageError
from targets.metering import metering
from targets.records import Absent, BenchRequest, Facts, Measurement, Profile
from targets.releases import Releases
from targets.runner import ProfilingRunner, Runner
from targets.runners import load_runner
from targets.transport import Transport
from targets.transports.adb import AdbTransport
from targets.wire import decode_facts, decode_measurement, decode_profile

_LOAD = 'cat "$1/load" 2>/dev/null; rm -f "$1/load"'


class ShellDevice(Device):
    """Everything is done by the device's own commands, and benchmarks by the runner."""

    def __init__(self, transport: Transport, session: ShellSession, runner: Runner) -> None:
        super().__init__(transport.spec, transport)
        self._session = session
        self._runner = runner
        self._known: Facts | None = None

    @property
    def _store(self) -> Store:
        return self._session

    @property
    def releases(self) -> Releases:
        app = AppFolder(self._session, self.spec.app) if self.spec.app else None
        return ShellReleases(self._session, app)

    def facts(self) -> Facts:
        name = self.spec.name
        text = self._session.script(FACTS, self._session.root, doing="asking for its facts")
        try:
            wire = parse_facts(text)
        except (KeyError, ValueError, IndexError) as fault:
            raise AgentFailed(f"{name}: its facts cannot be read ({fault!r})") from fault
        wire["runtimes"] = self._runner.runtimes(self._session)
        self._known = decode_facts(name, wire)
        return self._known

    def bench(self, request: BenchRequest, deadline_s: float, files: Mapping[str, Path] | None = None) -> Measurement:
        name, session = self.spec.name, self._session
        if files is None or not files.keys() >= request.files.keys():
            raise InputError(f"{name}: a device without Python needs the host's copies of the model and the sample")
        # What else sways a benchmark is asked around it; only a sensor may be refused now that was not before.
        facts = self._known if self._known and request.energy is None else self.facts()
        meter = metering(name, self.spec.meter, request.energy, facts.power_sources)
        if isinstance(meter, Absent):
            request, reading = replace(request, energy=None), None
        else:
            meter.begin()
            request, reading = replace(request, energy=meter.plan), meter.reading()
            deadline_s += meter.lasts_s()
        session.check({role: digest_hex(digest) for role, digest in request.files.items()})
        with turn(session, deadline_s) as waited_s:
            with fixed_performance(session, self.spec.fixed_performance) as mode:
                seen = self._conditions("before")
                with sampled(session, reading) as readings:
                    result = dict(self._runner.bench(session, request, files, max(1.0, deadline_s - waited_s)))
                seen |= self._conditions("after") | mode | self._transport.context()
            said = session.script(_LOAD, session.folder, doing="asking what else it was busy with")
            seen |= parse_load(said, facts.cpu_count)
        if waited_s >= 1:
            seen["waited_for_other_benchmark_s"] = f"{waited_s:.0f}"
        seen["cpus_allowed"] = ",".join(map(str, request.cpus)) or str(facts.cpu_count)
        if facts.emulated:
            seen["emulated"] = facts.emulated
        result |= {"conditions": {**seen, **result["conditions"]}, "readings": readings}
        return decode_measurement(name, request, result, meter)

    def profile(self, request: BenchRequest, deadline_s: float, files: Mapping[str, Path] | None = None) -> Profile:
        if not isinstance(self._runner, ProfilingRunner) or files is None:
            return super().profile(request, deadline_s, files)
        with turn(self._session, deadline_s) as waited_s:
            wire = self._runner.profile(self._session, request, files, max(1.0, deadline_s - waited_s))
        return decode_profile(self.spec.name, request, dict(wire))

    def _conditions(self, moment: str) -> dict[str, str]:
        text = self._session.script(QUIET_CONDITIONS, doing="asking for its conditions")
        return {f"{key}_{moment}": value for key, value in parse_conditions(sections(text)).items()}


def open_device(transport: Transport) -> Device:
    """Open a session with the device's shell."""
    if not isinstance(transport, AdbTransport):
        raise UsageError(f"{transport.spec.name}: {transport.spec.transport} reaches no shell", hint="set `python:`")
    runner = load_runner(transport.spec.runner)(transport.spec)
    return ShellDevice(transport, ShellSession(transport), runner)
