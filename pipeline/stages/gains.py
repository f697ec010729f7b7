"""What a repair gained: a candidate beside the one of the same precision without it. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from pipeline import quantities
from pipeline.records import CandidateReport

_REPAIRS = ("bias", "cle", "octav", "mse", "gptq")


def with_gain(candidate: CandidateReport, others: Sequence[CandidateReport]) -> CandidateReport:
    """The candidate with a finding that says what its repairs gained, where it has any and both could be judged."""
    parts = candidate.recipe.split("-")
    repairs = [part for part in parts if part in _REPAIRS]
    plain_name = "-".join(part for part in parts if part not in _REPAIRS)
    plain = next((other for other in others if other.recipe == plain_name), None)
    if not repairs or not candidate.fidelity:
        return candidate
    if plain is None or not plain.fidelity:
        said = f"add {plain_name} to the recipes to see what {' and '.join(repairs)} gained"
    else:
        said = f"{' and '.join(repairs)} gained {_gain(candidate, plain)} over {plain_name}"
    return replace(candidate, findings=(*candidate.findings, said))


def _gain(candidate: CandidateReport, plain: CandidateReport) -> str:
    parts = [f"{candidate.fidelity['sqnr_db'] - plain.fidelity['sqnr_db']:+.1f} dB of SQNR".replace("-", "−")]
    for name, metric in candidate.metrics.items():
        if name in plain.metrics:
            before, after = (
                quantities.metric(value, metric.unit) for value in (plain.metrics[name].value, metric.value)
            )
            parts.append(f"{name} {before} → {after}")
    return ", ".join(parts)
