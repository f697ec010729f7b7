"""What the toolkits' guides promise of each kind of quantization, beside what came of it here."""

from pipeline import quantities
from pipeline.records import CandidateReport, Report
from pipeline.reporting.searching import Grid


def promises(report: Report) -> Grid | None:
    """A row for each candidate of which something is promised; None without any."""
    judged = [c for c in report.candidates if c.size_ratio is not None and c.promised_size_ratio is not None]
    if not judged:
        return None
    targets = list(report.facts)
    return Grid(
        title="As a share of float32 in the same format: what the toolkits' guides promise, and what came of it",
        columns=("Recipe", "Size, promised", "Size", "Latency, promised", *(f"Latency, {name}" for name in targets)),
        rows=tuple(_row(candidate, targets) for candidate in judged),
    )


def _row(candidate: CandidateReport, targets: list[str]) -> tuple[str, ...]:
    ratios = [candidate.targets[name].latency_ratio if name in candidate.targets else None for name in targets]
    sizes = (candidate.promised_size_ratio, candidate.size_ratio)
    return (candidate.recipe, *map(_times, (*sizes, candidate.promised_latency_ratio, *ratios)))


def _times(ratio: float | None) -> str:
    return "—" if ratio is None else quantities.times(ratio)
