"""One number over the sessions of `deploy measure` and `deploy compare`, as points of a history."""

from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.measuring.records import Order, Session
from pipeline.measuring.statistics import latency
from pipeline.quality.energy import energy_per_inference
from pipeline.release.series import Point
from targets.records import Absent

METRICS = ("latency_p50", "latency_p90", "first", "load", "peak_memory", "energy")


def points(sessions: Iterable[Session], metric: str, target: str, recipe: str | None) -> list[Point]:
    """The metric of each session on the target, one point per model; of one recipe when it is named."""
    found = []
    for session in sessions:
        if session.target != target or metric not in METRICS:
            continue
        for label, model in sorted(session.models.items()):
            name, sequence = _of_release(model)
            if session.of(label) and recipe in (None, name):
                found.append(_point(session, label, metric, name, sequence))
    return found


def merged(runs: Sequence[Point], sessions: Sequence[Point]) -> list[Point]:
    """Both in the order of time."""
    return sorted([*runs, *sessions], key=lambda point: point.date)


def _point(session: Session, label: Order, metric: str, recipe: str, sequence: int) -> Point:
    blocks = session.of(label)
    found = latency(blocks)
    peaks = [peak for block in blocks if isinstance(peak := block.measurement.peak_rss_bytes, int)]
    values: dict[str, float | None] = {
        "latency_p50": found.median.value,
        "latency_p90": found.p90,
        "first": found.first_ms,
        "load": found.load_ms,
        "peak_memory": float(np.median(peaks)) if peaks else None,
        "energy": None,
    }
    interval = (found.median.low, found.median.high) if metric == "latency_p50" else None
    doubts: list[str] = [finding.doubt for finding in session.findings]
    if metric == "energy" and (measured := session.metered.get(label)):
        joules = energy_per_inference(measured)
        if not isinstance(joules, Absent):
            values["energy"] = joules.gross_j
            interval = (joules.gross_j - joules.gross_error_j, joules.gross_j + joules.gross_error_j)
            doubts += joules.doubts
    return Point(
        date=session.when,
        sequence=sequence,
        recipe=recipe,
        value=values[metric],
        interval=interval,
        doubts=tuple(dict.fromkeys(doubts)),
        source="session",
    )


def _of_release(model: str) -> tuple[str, int]:
    """The recipe and the number of the release of a model as `subjects` calls it; 0 when it is of no release."""
    release, _, recipe = model.removesuffix(")").rpartition(" (")
    sequence = release.rpartition(" ")[2]
    return (recipe, int(sequence)) if release and sequence.isdecimal() else (model, 0)
