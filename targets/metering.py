"""Which meter measures a benchmark's energy, what the device is asked for, and the trace that comes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from targets.errors import InputError
from targets.meter import LogMeter, Readings
from targets.meters import LOGS, device_meters, log_meter
from targets.records import Absent, EnergyPlan, PowerSource, PowerTrace, Window

# Around each window its load lasts so long more: for a change's own noise, and for twice the sensor's mean.
_LEAST_SETTLE_S = 0.2
_SETTLE_AVERAGES = 2.0
_IDLE_AVERAGES = 6.0  # of a sensor that is slow: fewer means tell nothing of how idling varies
NONE = "none"
NOT_ASKED = "not asked for: a budget for energy, choose: energy, or measure.energy asks"


def power_sources(sensors: Mapping[str, str]) -> tuple[PowerSource, ...]:
    """Every power sensor among a device's sensor files, the best first, those that tell nothing now last."""
    found = [source for meter in device_meters().values() for source in meter.sources(sensors)]
    return tuple(sorted(found, key=lambda source: (source.kind == "modelled", bool(source.refused))))


class Metering:
    """The energy of one benchmark on one device, by a sensor of the device or by a log."""

    def __init__(self, plan: EnergyPlan, source: PowerSource | None, log: LogMeter | None) -> None:
        averaging_s = source.averaging_s if source else 0.0
        # What a command tells is read seldom: idling is then watched as long as inference, or its noise hides the net.
        by_command_s = plan.window_s if source and source.command else 0.0
        self.plan = replace(
            plan,
            settle_s=max(_LEAST_SETTLE_S, _SETTLE_AVERAGES * averaging_s),
            idle_s=max(plan.idle_s, _IDLE_AVERAGES * averaging_s, by_command_s),
        )
        self.source, self.log = source, log

    def begin(self) -> None:
        """Raises InputError when the log of an external meter cannot be read."""
        if self.log:
            self.log.begin()

    def reading(self) -> Mapping[str, Any] | None:
        """What is to be read on the device while the benchmark runs; None: nothing there."""
        if self.source is None:
            return None
        source = self.source
        return {"files": list(source.files), "command": source.command, "interval_s": source.interval_s}

    def lasts_s(self) -> float:
        """What the windows take beside the benchmark itself, if no inference is longer than a window."""
        plan = self.plan
        busy_s = plan.windows * (plan.window_s + 2 * plan.settle_s)
        return busy_s + (plan.windows + 1) * (plan.idle_s + 2 * plan.settle_s)

    def trace(self, wire: Mapping[str, Any]) -> PowerTrace | Absent:
        """What the device's answer says. Raises KeyError, TypeError or ValueError when that is out of protocol."""
        windows = tuple(
            Window(kind=w["kind"], start_ns=int(w["start_ns"]), end_ns=int(w["end_ns"]), runs=int(w["runs"]))
            for w in wire.get("windows", ())
        )
        if not windows:
            return Absent(reason="what measures on this device makes no windows for a power meter")
        if self.log:
            return self.log.trace(windows)
        if self.source is None:
            raise ValueError("no meter was chosen")
        readings = Readings(
            time_ns=tuple(int(at) for at in wire["readings"]["time_ns"]),
            values=tuple(tuple(str(text) for text in texts) for texts in wire["readings"]["values"]),
        )
        found = device_meters()[self.source.meter].trace(self.source, readings)
        if isinstance(found, Absent):
            return found
        return replace(found, windows=windows, notes=(*found.notes, *_cost(readings, wire["readings"].get("cpu_s"))))


def _cost(readings: Readings, cpu_s: float | None) -> tuple[str, ...]:
    """How much of a processor the reading itself took: it is in idle and busy windows alike."""
    if not cpu_s or len(readings.time_ns) < 2:
        return ()
    share = float(cpu_s) / ((readings.time_ns[-1] - readings.time_ns[0]) * 1e-9)
    return (f"reading it took {share:.1%} of a processor",)


def metering(target: str, asked: str, plan: EnergyPlan | None, sources: Sequence[PowerSource]) -> Metering | Absent:
    """The meter to use; Absent with the reason when there is none to be had.

    `asked` is the target's `meter`. Raises InputError for one that the device does not have, UsageError for a log
    without a path.
    """
    if plan is None:
        return Absent(reason=NOT_ASKED)
    if asked == NONE:
        return Absent(reason=f"{target} is to be measured without a meter (meter: none)")
    if log := log_meter(asked):
        return Metering(plan, None, log)
    name, _, place = asked.partition(":")
    fitting = [
        source
        for source in sources
        if (source.meter == name and place in source.place if asked else source.kind == "measured")
    ]
    if asked and not fitting:
        there = ", ".join(f"{source.meter}:{source.place}" for source in sources) or "no power sensor"
        hint = f"use one that it has, or {', '.join(f'{log}:PATH' for log in LOGS)}; deploy targets probe lists them"
        raise InputError(f"{target} has no meter {asked!r}; it has {there}", hint=hint)
    if not fitting:
        return Absent(reason=f"no power meter found on {target}")
    best = fitting[0]
    if best.refused:
        return Absent(reason=f"{best.meter}: {best.refused}")
    alike = [source for source in fitting if source.meter == best.meter]
    if len(alike) > 1:
        places = ", ".join(source.place for source in alike)
        return Absent(
            reason=f"{target} has {len(alike)} {best.meter} ({places}): say which by meter: {best.meter}:PLACE"
        )
    return Metering(plan, best, None)
