"""The verdict of a run in one sentence that needs no table beside it."""

from pipeline import quantities
from pipeline.records import CandidateReport, MetricValue, Report, Status, Summary, VerdictKind
from pipeline.reporting.comparison import baseline_of, sqnr
from targets.records import Facts, Failed

STATUS_WORDS: dict[Status, str] = {
    "pass": "Pass",
    "fail": "Fail",
    "device-error": "Device error",
    "inconclusive": "Inconclusive",
}
VERDICT_WORDS: dict[VerdictKind, str] = {
    "pass": "pass",
    "fail": "fail",
    "refused": "refused",
    "inconclusive": "inconclusive",
}
# A shape for each verdict, so that none is told by colour alone.
VERDICT_SIGNS: dict[VerdictKind, str] = {"pass": "✓", "fail": "✗", "refused": "⊘", "inconclusive": "?"}
STATUS_SIGNS: dict[Status, str] = {"pass": "✓", "fail": "✗", "device-error": "!", "inconclusive": "?"}

_SAME_SIZE = "the same size"
# More names than this make a list of the sentence.
_DEVICES_NAMED = 3


def headline(report: Report) -> str:
    chosen = next((c for c in report.candidates if c.recipe == report.chosen), None)
    reason = report.reason.strip().rstrip(".")
    if chosen is None:
        opening = {
            "pass": "One for each class of devices",
            "fail": "Nothing passes",
            "device-error": "No verdict, a device failed",
            "inconclusive": "No verdict, the evidence does not decide",
        }[report.status]
        return f"{opening}: {reason}" if reason else opening
    base = baseline_of(report)
    if reason.lower().startswith("keep "):
        # The gate's own words when a float recipe is the best there is.
        return reason[0].upper() + reason[1:]
    if base is chosen:
        return f"Keep {chosen.recipe}: {reason}" if reason else f"Keep {chosen.recipe}"
    parts = [*_against(report, chosen, base), *_quality(chosen)]
    sentence = f"Ship {chosen.recipe}: {', '.join(parts)}" if parts else f"Ship {chosen.recipe}"
    silent = [name for name, facts in report.facts.items() if isinstance(facts, Failed)]
    return sentence + (f"; no numbers from {', '.join(silent)}" if silent else "")


def why(report: Report) -> str:
    """The reason for the choice, where the headline has room for its effects only; else nothing."""
    reason = report.reason.strip().rstrip(".")
    return "" if reason.lower() in headline(report).lower() else reason


def by_target(report: Report) -> str:
    """What each device gets, when that is not the same everywhere; else nothing."""
    picks = report.chosen_by_target
    if all(pick == report.chosen for pick in picks.values()):
        return ""
    without = (_nothing(report, target) for target in picks)
    return "; ".join(f"{target}: {pick or none}" for (target, pick), none in zip(picks.items(), without, strict=True))


def _nothing(report: Report, target: str) -> str:
    """Why a device gets no candidate."""
    if isinstance(report.facts.get(target), Failed):
        return "no numbers"
    verdicts = {c.targets[target].verdict for c in report.candidates if target in c.targets}
    return "not decided" if "inconclusive" in verdicts else "nothing passes"


def _against(report: Report, chosen: CandidateReport, base: CandidateReport | None) -> list[str]:
    if base is None:
        return []
    parts = []
    if base.size_bytes and chosen.size_bytes:
        parts.append(_factor(base.size_bytes / chosen.size_bytes, "smaller", "larger", _SAME_SIZE))
    speed = _speed(chosen, base)
    if speed:
        return [*parts, speed + _emulated(report)]
    return [f"{part} {'as' if part == _SAME_SIZE else 'than'} {base.recipe}" for part in parts]


def _speed(chosen: CandidateReport, base: CandidateReport) -> str:
    """`4.1× faster than litert-float32`; with several devices, on which."""
    places: dict[str, list[str]] = {}
    ratios = []
    for target, result in chosen.targets.items():
        other = base.targets.get(target)
        if other and isinstance(result.warm_ms, Summary) and isinstance(other.warm_ms, Summary):
            ratios.append(other.warm_ms.median / result.warm_ms.median)
            phrase = _factor(ratios[-1], "faster", "slower", "as fast")
            places.setdefault(phrase, []).append(target)
    if len(ratios) > _DEVICES_NAMED:
        low, high = (quantities.number(edge(ratios), 2) for edge in (min, max))
        return f"{low}–{high}× the speed of {base.recipe} on {len(ratios)} devices"
    phrases: list[str] = []
    for phrase, targets in places.items():
        against = "" if phrases else f" {'as' if phrase == 'as fast' else 'than'} {base.recipe}"
        where = f" on {', '.join(targets)}" if len(ratios) > 1 else ""
        phrases.append(f"{phrase}{against}{where}")
    return " and ".join(phrases)


def _emulated(report: Report) -> str:
    names = [name for name, facts in report.facts.items() if isinstance(facts, Facts) and facts.emulated]
    return f" (emulated: {', '.join(names)})" if names else ""


def _factor(ratio: float, more: str, less: str, equal: str) -> str:
    # Two digits are what is spoken; a difference they do not show is not worth a sentence.
    if 0.95 < ratio < 1.05:
        return equal
    return f"{quantities.number(max(ratio, 1 / ratio), 2)}× {more if ratio > 1 else less}"


def _quality(chosen: CandidateReport) -> list[str]:
    for name, metric in chosen.metrics.items():
        return [_lost(name, metric)]
    if "sqnr_db" in chosen.fidelity:
        return [f"SQNR against float {sqnr(chosen)}"]
    return []


def _lost(name: str, metric: MetricValue) -> str:
    places = 2 if abs(metric.reference) >= 10 else 3
    amount = quantities.signed(abs(metric.drop), places).lstrip("+±")
    if amount == "0":
        return f"no {name} lost"
    return f"{quantities.with_unit(amount, metric.unit)} {name} {'lost' if metric.drop > 0 else 'gained'}"
