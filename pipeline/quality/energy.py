"""Joules from a stored power trace: the one place where they are derived. Pure.

Rules: MLPerf Tiny (energy per inference is all energy of a window over its inferences; windows of at least 10 s, the
median of five) and MLPerf Power (time and energy of the same run).
"""

from dataclasses import dataclass

import numpy as np

from pipeline.derived import Energy
from pipeline.quality.power import Curve, Floats, ImpossibleTrace, curve
from targets.records import Absent, Measurement, PowerTrace, Window

# A gate believes no less than this; a report shows it with its doubt.
LEAST_WINDOW_S = 10.0
LEAST_WINDOWS = 5
# The idle power's noise over the window, as a share of the net energy: beyond it the net is the noise's.
MOST_BASELINE_NOISE = 0.1
# Between the integral and mean power times time. Apart they are where samples are uneven and the load was not steady.
MOST_CLOSURE = 0.02
MOST_MISSING = 0.2
MOST_GAP = 0.5  # of a window; what happens in a gap is guessed from its ends
_TWO_SIGMA = 1.96
_ROUNDING_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    """One window of the trace."""

    middle_s: float
    duration_s: float
    runs: int
    energy_j: float
    samples_w: Floats
    missing: int
    longest_gap: float  # without a sample, as a share of the window
    closure: float

    @property
    def mean_w(self) -> float:
        return self.energy_j / self.duration_s


def energy_per_inference(measured: Measurement) -> Energy | Absent:
    """Gross and net energy of one warm inference, or why there is none. Modelled power gives joules with a doubt."""
    trace = measured.energy
    return trace if isinstance(trace, Absent) else energy_of(trace)


def gross_per_inference_j(measured: Measurement) -> float | Absent:
    """Gross joules alone, for who shows no uncertainty."""
    energy = energy_per_inference(measured)
    return energy if isinstance(energy, Absent) else energy.gross_j


def energy_of(trace: PowerTrace) -> Energy | Absent:
    """Gross and net energy per inference of a trace with its windows."""
    try:
        found = curve(trace)
    except ImpossibleTrace as fault:
        return Absent(reason=str(fault))
    origin_ns = trace.time_ns[0]
    stretches = {"idle": list[_Stretch](), "busy": list[_Stretch]()}
    for window in trace.windows:
        start_s, end_s = ((at - origin_ns) * 1e-9 for at in (window.start_ns, window.end_ns))
        if end_s <= start_s or not found.covers(start_s, end_s):
            return Absent(reason=f"the samples of {trace.meter} do not cover the window at {start_s:.1f} s")
        # One that shows a mean may be read more often than it has a new one, to see when; no more is missed then.
        every_s = max(trace.interval_s, trace.averaging_s)
        stretch = _stretch(found, window, start_s, end_s, every_s)
        if len(stretch.samples_w) < 2:
            return Absent(reason=f"{trace.meter} gave no two samples in the window at {start_s:.1f} s")
        stretches[window.kind].append(stretch)
    busy, idle = stretches["busy"], stretches["idle"]
    if not busy or not all(stretch.runs for stretch in busy):
        return Absent(reason=f"{trace.meter} was read, but there is no window with a whole inference")
    if refusal := _refusal(trace, [*busy, *idle]):
        return Absent(reason=refusal)
    return _energy(trace, busy, idle)


def _stretch(found: Curve, window: Window, start_s: float, end_s: float, every_s: float) -> _Stretch:
    samples_w, moments_s = found.samples_w(start_s, end_s), found.moments_s(start_s, end_s)
    energy_j = found.energy_j_between(start_s, end_s)
    duration_s = end_s - start_s
    closure = 0.0
    if found.power_w is not None and len(samples_w):
        closure = abs(float(samples_w.mean()) * duration_s - energy_j) / max(abs(energy_j), 1e-12)
    return _Stretch(
        middle_s=(start_s + end_s) / 2,
        duration_s=duration_s,
        runs=window.runs,
        energy_j=energy_j,
        samples_w=samples_w,
        missing=_missing(len(moments_s), duration_s, every_s),
        longest_gap=float(np.diff(np.concatenate([[start_s], moments_s, [end_s]])).max()) / duration_s,
        closure=closure,
    )


def _missing(samples: int, duration_s: float, every_s: float) -> int:
    """By their number: by the gaps between them, a meter that is read unevenly would seem to lose what it has."""
    return max(0, round(duration_s / every_s) - samples) if every_s > 0 else 0


def _refusal(trace: PowerTrace, stretches: list[_Stretch]) -> str:
    missing, samples = sum(s.missing for s in stretches), sum(len(s.samples_w) for s in stretches)
    if missing > MOST_MISSING * (samples + missing):
        return f"{missing} of {samples + missing} samples of {trace.meter} are missing"
    gap = max(stretch.longest_gap for stretch in stretches)
    if gap > MOST_GAP:
        return f"{trace.meter} was silent for {gap:.0%} of a window"
    worst = max(stretch.closure - _end_effect(stretch) for stretch in stretches)
    if worst > MOST_CLOSURE:
        return f"the samples of {trace.meter} do not close: integral and mean power differ by {worst:.1%}"
    if min(stretch.mean_w for stretch in stretches) <= 0:
        return f"{trace.meter} shows no power"
    return ""


def _end_effect(stretch: _Stretch) -> float:
    """What closure may miss where few samples vary much: the ends of a window are half a sample each."""
    spread = float(np.std(stretch.samples_w)) / abs(stretch.mean_w) if stretch.mean_w else 0.0
    return 3 * spread / len(stretch.samples_w)


def _energy(trace: PowerTrace, busy: list[_Stretch], idle: list[_Stretch]) -> Energy:
    gross = np.array([stretch.energy_j / stretch.runs for stretch in busy])
    gross_j = float(np.median(gross))
    seconds = float(np.median([stretch.duration_s / stretch.runs for stretch in busy]))  # of one inference
    reading_j = _reading_error_w(trace, busy) * seconds
    gross_error_j = float(np.hypot(_half_range(gross), np.hypot(reading_j, trace.error_share * gross_j)))
    net_j, net_error_j = _net(trace, busy, idle, seconds)
    return Energy(
        meter=trace.meter,
        scope=trace.scope,
        gross_j=gross_j,
        gross_error_j=gross_error_j,
        net_j=net_j,
        net_error_j=net_error_j,
        busy_w=float(np.median([stretch.mean_w for stretch in busy])),
        idle_w=float(np.median([stretch.mean_w for stretch in idle])) if idle else 0.0,
        windows=len(busy),
        window_s=min(stretch.duration_s for stretch in busy),
        inferences=sum(stretch.runs for stretch in busy),
        samples=sum(len(stretch.samples_w) for stretch in busy),
        missing_samples=sum(stretch.missing for stretch in busy),
        doubts=tuple(_doubts(trace, busy)),
    )


def _net(trace: PowerTrace, busy: list[_Stretch], idle: list[_Stretch], seconds: float) -> tuple[float | Absent, float]:
    """What inference added to idling, the idle power at each window being that of the idle windows around it."""
    moments = [stretch.middle_s for stretch in idle]
    if not idle or not all(min(moments) < stretch.middle_s < max(moments) for stretch in busy):
        return Absent(reason="idling was not measured both before and after"), 0.0
    levels = [stretch.mean_w for stretch in idle]
    baseline = np.interp([stretch.middle_s for stretch in busy], moments, levels)
    net = np.array([(s.mean_w - idle_w) * s.duration_s / s.runs for s, idle_w in zip(busy, baseline, strict=True)])
    net_j = float(np.median(net))
    noise_j = _baseline_noise_w(trace, busy, idle) * seconds
    if net_j <= 0 or noise_j > MOST_BASELINE_NOISE * net_j:
        share = f"{noise_j / net_j:.0%} of" if net_j > 0 else "more than"
        return Absent(
            reason=f"the noise of idling is {share} what inference adds: idle the device, or use a finer meter"
        ), 0.0
    reading_j = _reading_error_w(trace, busy) * seconds
    # The median of several windows is as much better as several are than one.
    noise_j *= _TWO_SIGMA / len(busy) ** 0.5
    parts = [_half_range(net), noise_j, reading_j, trace.error_share * net_j]
    return net_j, float(np.sqrt(np.sum(np.square(parts))))


def _baseline_noise_w(trace: PowerTrace, busy: list[_Stretch], idle: list[_Stretch]) -> float:
    """Standard error of the idle power at one typical window, by how its neighbours differ and by their own samples."""
    found = []
    for stretch in busy:
        before = max((s for s in idle if s.middle_s < stretch.middle_s), key=lambda s: s.middle_s)
        after = min((s for s in idle if s.middle_s > stretch.middle_s), key=lambda s: s.middle_s)
        drift_w = abs(after.mean_w - before.mean_w) / 2
        errors = [_standard_error_w(trace, s) for s in (before, after)]
        found.append(float(np.hypot(drift_w, np.hypot(errors[0], errors[1]) / 2)))
    return float(np.median(found))


def _standard_error_w(trace: PowerTrace, stretch: _Stretch) -> float:
    """Of the mean of a window's samples; those of one averaging time are one."""
    count = len(stretch.samples_w)
    if trace.averaging_s > 0:
        count = max(2, min(count, int(stretch.duration_s / trace.averaging_s)))
    return float(np.std(stretch.samples_w) / np.sqrt(count))


def _reading_error_w(trace: PowerTrace, busy: list[_Stretch]) -> float:
    """What the meter's steps may hide (95 %): half a step of a load that keeps to one; else they average out."""
    if not trace.resolution_w:
        return 0.0
    samples = np.concatenate([stretch.samples_w for stretch in busy])
    if np.ptp(samples) < trace.resolution_w * 0.99:
        return trace.resolution_w / 2
    return float(_TWO_SIGMA * trace.resolution_w / np.sqrt(12 * len(samples)))


def _half_range(values: Floats) -> float:
    """Half of the range: of five values it holds the true median with 94 % (order statistics, whatever they follow)."""
    return float(np.ptp(values)) / 2


def _doubts(trace: PowerTrace, busy: list[_Stretch]) -> list[str]:
    found = []
    if trace.kind != "measured":
        found.append(f"the power is {trace.kind}, not measured")
    if len(busy) < LEAST_WINDOWS:
        found.append(f"{len(busy)} windows, {LEAST_WINDOWS} are needed")
    shortest_s = min(stretch.duration_s for stretch in busy)
    if shortest_s < LEAST_WINDOW_S - _ROUNDING_S:
        found.append(f"windows of {shortest_s:.3g} s, {LEAST_WINDOW_S:g} s are needed")
    return found
