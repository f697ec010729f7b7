"""Power and energy of a stored trace over any stretch of its time; no rules, no judgement."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targets.records import Counter, PowerTrace

Floats = NDArray[np.float64]


class ImpossibleTrace(ValueError):
    """A trace that no sensor can have given; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A trace as energy since its first sample: exact where power runs straight from one sample to the next.

    Of accumulating registers the power is constant between two readings.
    """

    time_s: Floats
    energy_j: Floats  # at each of them
    power_w: Floats | None  # at each of them; None: the energy was accumulated by the meter

    def energy_at_j(self, moment_s: float) -> float:
        """Energy until a moment inside the trace."""
        if self.power_w is None:
            return float(np.interp(moment_s, self.time_s, self.energy_j))
        place = int(np.clip(np.searchsorted(self.time_s, moment_s, side="right") - 1, 0, len(self.time_s) - 1))
        watts = float(np.interp(moment_s, self.time_s, self.power_w))
        return float(self.energy_j[place] + (self.power_w[place] + watts) / 2 * (moment_s - self.time_s[place]))

    def energy_j_between(self, start_s: float, end_s: float) -> float:
        return self.energy_at_j(end_s) - self.energy_at_j(start_s)

    def covers(self, start_s: float, end_s: float) -> bool:
        return bool(self.time_s[0] <= start_s and end_s <= self.time_s[-1])

    def samples_w(self, start_s: float, end_s: float) -> Floats:
        """What the meter said inside a stretch of time; of registers, the power from one reading to the next."""
        inside = (self.time_s >= start_s) & (self.time_s <= end_s)
        if self.power_w is not None:
            return np.asarray(self.power_w[inside])
        steps_s = np.diff(self.time_s[inside])
        return np.asarray(np.diff(self.energy_j[inside]) / steps_s)

    def moments_s(self, start_s: float, end_s: float) -> Floats:
        return self.time_s[(self.time_s >= start_s) & (self.time_s <= end_s)]


def curve(trace: PowerTrace) -> Curve:
    """The trace's samples in order, without repetitions of a moment. Raises ImpossibleTrace."""
    time_ns = np.asarray(trace.time_ns, dtype=np.int64)
    if len(time_ns) < 2:
        raise ImpossibleTrace(f"{trace.meter} gave {len(time_ns)} samples, two are needed")
    lengths = {len(counter.readings_j) for counter in trace.counters} | ({len(trace.power_w)} - {0})
    if lengths != {len(time_ns)}:
        raise ImpossibleTrace(f"{trace.meter} gave {len(time_ns)} time stamps for {sorted(lengths)} readings")
    if np.any(np.diff(time_ns) < 0):
        raise ImpossibleTrace(f"the clock of {trace.meter} ran backwards")
    kept = np.concatenate([[True], np.diff(time_ns) > 0])
    time_s = (time_ns[kept] - time_ns[0]) * 1e-9  # from the first: nanoseconds since boot are more than a float holds
    if trace.counters:
        total_j = sum((unwrapped_j(counter) for counter in trace.counters), np.zeros(len(time_ns)))
        return Curve(time_s=time_s, energy_j=total_j[kept], power_w=None)
    power_w = np.asarray(trace.power_w, dtype=np.float64)[kept]
    if not np.all(np.isfinite(power_w)):
        raise ImpossibleTrace(f"{trace.meter} gave a power that is no number")
    steps_j = np.diff(time_s) * (power_w[1:] + power_w[:-1]) / 2
    return Curve(time_s=time_s, energy_j=np.concatenate([[0.0], np.cumsum(steps_j)]), power_w=power_w)


def unwrapped_j(counter: Counter) -> Floats:
    """Energy since the first reading of an accumulating register that begins at 0 again beyond its range.

    Whoever reads it seldomer than it wraps loses a range without a trace. Raises ImpossibleTrace for a register that
    fell and has no range, which is what a restarted device looks like.
    """
    readings = np.asarray(counter.readings_j, dtype=np.float64)
    steps = np.diff(readings)
    if np.any(steps < 0) and counter.range_j <= 0:
        raise ImpossibleTrace(f"the counter {counter.name} began anew during the run")
    if np.any(readings < 0) or (counter.range_j > 0 and np.any(readings > counter.range_j)):
        raise ImpossibleTrace(f"the counter {counter.name} left its range of {counter.range_j:g} J")
    steps = np.where(steps < 0, steps + counter.range_j, steps)
    return np.concatenate([[0.0], np.cumsum(steps)])
