"""Joules from a stored power trace: the one place where they are derived."""

from targets.records import Absent, Measurement


def energy_per_inference(measured: Measurement) -> float | Absent:
    """Gross energy per warm inference in joules: the trapezoid integral of power over the trace's own timestamps,
    scaled to one inference by the trace's duration (as MLPerf Tiny reports it; idle power is not subtracted)."""
    trace = measured.energy
    if isinstance(trace, Absent):
        return trace
    if len(trace.time_ns) < 2:
        return Absent(reason=f"{trace.meter} gave {len(trace.time_ns)} samples, two are needed")
    pairs = zip(trace.time_ns, trace.time_ns[1:], trace.power_w, trace.power_w[1:], strict=False)
    joules = sum((later - now) * 1e-9 * (power + next_power) / 2 for now, later, power, next_power in pairs)
    duration_s = (trace.time_ns[-1] - trace.time_ns[0]) * 1e-9
    median_s = sorted(measured.warm_ns)[len(measured.warm_ns) // 2] * 1e-9
    return joules / duration_s * median_s
