"""One number over the runs, and what it looks like in a line of text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UsageError, nearest
from pipeline.release.records import RunEntry

# As deploy.yaml's budgets and report.json call them → the field of `RunNumbers`.
DEVICE_METRICS = {
    "latency_p50": "latency_p50_ms",
    "latency_p90": "latency_p90_ms",
    "first": "first_ms",
    "load": "load_ms",
    "peak_memory": "peak_memory_bytes",
    "energy": "energy_j",
}
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run's value, or one session's of measuring; None where it was not measured."""

    date: str
    sequence: int
    recipe: str
    value: float | None
    interval: tuple[float, float] | None = None  # 95 %, where it is known
    doubts: tuple[str, ...] = ()  # why a session's value may not be trusted
    source: Literal["run", "session"] = "run"


def series(runs: Sequence[RunEntry], metric: str, target: str | None, recipe: str | None) -> list[Point]:
    """The metric of what each run chose (or of one recipe), oldest first; of the quality where it is no device's.

    Raises:
        UsageError: there is no such metric or target in any run, or the target must be said.
    """
    qualities = {key for run in runs for made in run.recipes.values() for key in (*made.metrics, *made.fidelity)}
    known = [*DEVICE_METRICS, "size", *sorted(qualities)]
    if metric not in known:
        raise UsageError(
            f"--metric {metric}: no run has it{nearest(metric, known)}", hint=f"there are {', '.join(known)}"
        )
    targets = list(dict.fromkeys(name for run in runs for name in run.targets))
    if metric in DEVICE_METRICS and target is None and len(targets) != 1:
        raise UsageError(f"--metric {metric}: is of one device", hint=f"say which: --target {'|'.join(targets)}")
    if target is not None and target not in targets:
        raise UsageError(
            f"--target {target}: in no run{nearest(target, targets)}", hint=f"there are {', '.join(targets)}"
        )
    place = target or targets[0]
    points = []
    for run in runs:
        of = recipe or run.chosen.get(run.classes.get(place, "default")) or ""
        points.append(Point(date=run.date, sequence=run.sequence, recipe=of, value=_value(run, metric, place, of)))
    return points


def _value(run: RunEntry, metric: str, target: str, recipe: str) -> float | None:
    if metric in DEVICE_METRICS:
        numbers = run.targets.get(target, {}).get(recipe)
        value: float | None = getattr(numbers, DEVICE_METRICS[metric]) if numbers else None
        return value
    made = run.recipes.get(recipe)
    if made is None:
        return None
    return float(made.size_bytes) if metric == "size" else {**made.fidelity, **made.metrics}.get(metric)


def line(values: Sequence[float | None]) -> str:
    """A line of bars from the least to the largest; a dot where there is no value."""
    there = [value for value in values if value is not None]
    if not there:
        return "·" * len(values)
    low, high = min(there), max(there)
    steps = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join("·" if value is None else _BARS[round((value - low) * steps)] for value in values)
