"""Evidence in, verdict out: which candidates may ship to each target, and which one is chosen.

Pure: it touches no device and no file, so a verdict can be recomputed from stored records at any time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.fit.records import UNFIT
from pipeline.quality.energy import energy_per_inference
from pipeline.quality.statistics import intervals_overlap, summarize
from pipeline.recipes import RECIPES
from pipeline.records import (
    Decision,
    Objective,
    Status,
    Summary,
    Verdict,
)
from pipeline.stages.judging import Budgets, Evidence, judge
from pipeline.stages.outcome import with_outcome, with_suggestion
from pipeline.stages.rounds import LEVEL_SHARE, Round, is_slower, median_ms, rounds_of
from targets.records import Absent, Measurement


def decide(
    evidence: Mapping[str, Mapping[str, Evidence]], targets: Sequence[str], budgets: Budgets, objective: Objective
) -> Decision:
    """Judge every candidate on every target and choose.

    Args:
        evidence: target → recipe → evidence, for the recipes that gave an artifact.
        targets: all targets asked for, also those that could not be reached.
    """
    verdicts = {target: _judged(by_recipe, budgets, objective) for target, by_recipe in evidence.items()}
    chosen_by_target: dict[str, str | None] = {}
    for target in targets:
        passing = {
            recipe: found
            for recipe, found in evidence.get(target, {}).items()
            if verdicts[target][recipe].verdict == "pass"
        }
        chosen_by_target[target] = _best(passing, objective) if passing else None
    everywhere = _passing_everywhere(verdicts, targets)
    chosen = _best_over_all(evidence, everywhere, targets, objective) if everywhere else None
    status = _status(verdicts, evidence, targets, chosen)
    return Decision(
        verdicts=verdicts,
        chosen_by_target=chosen_by_target,
        chosen=chosen,
        status=status,
        reason=_explain(evidence, verdicts, targets, chosen, objective),
    )


def decide_by_class(
    evidence: Mapping[str, Mapping[str, Evidence]],
    classes: Mapping[str, Sequence[str]],
    budgets: Budgets,
    objective: Objective,
) -> Decision:
    """Judge as `decide` does, and choose for each class of devices as well.

    With several classes a run passes when each has a choice, though no candidate may suit them all.

    Args:
        classes: class → its targets.
    """
    whole = decide(evidence, [target for targets in classes.values() for target in targets], budgets, objective)
    if len(classes) == 1:
        only = next(iter(classes))
        return replace(whole, chosen_by_class={only: whole.chosen}, reason_by_class={only: whole.reason})
    parts = {
        name: decide({t: evidence.get(t, {}) for t in targets}, targets, budgets, objective)
        for name, targets in classes.items()
    }
    reasons = {name: part.reason for name, part in parts.items()}
    by_class = replace(
        whole, chosen_by_class={name: part.chosen for name, part in parts.items()}, reason_by_class=reasons
    )
    if whole.chosen is not None:
        return by_class
    status = "pass" if all(part.chosen for part in parts.values()) else whole.status
    return replace(by_class, status=status, reason="; ".join(f"{name}: {reason}" for name, reason in reasons.items()))


def _judged(by_recipe: Mapping[str, Evidence], budgets: Budgets, objective: Objective) -> dict[str, Verdict]:
    """The verdicts on one target, each with what came of its recipe and what to try instead."""
    measured, rounds = {recipe: found.measured for recipe, found in by_recipe.items()}, rounds_of(by_recipe)
    verdicts = {
        recipe: with_outcome(judge(found, budgets, objective), found.artifact, measured, found.promised_size, rounds)
        for recipe, found in by_recipe.items()
    }
    known, searchable = frozenset(RECIPES), bool(budgets.max_drop)
    return {
        recipe: with_suggestion(recipe, verdicts, known, found.features, searchable)
        for recipe, found in by_recipe.items()
    }


def _passing_everywhere(verdicts: Mapping[str, Mapping[str, Verdict]], targets: Sequence[str]) -> list[str]:
    recipes = list(dict.fromkeys(recipe for by_recipe in verdicts.values() for recipe in by_recipe))
    return [
        recipe
        for recipe in recipes
        if all((v := verdicts.get(target, {}).get(recipe)) is not None and v.verdict == "pass" for target in targets)
    ]


def _status(
    verdicts: Mapping[str, Mapping[str, Verdict]],
    evidence: Mapping[str, Mapping[str, Evidence]],
    targets: Sequence[str],
    chosen: str | None,
) -> Status:
    if chosen is not None:
        return "pass"
    measured = [f.measured for by_recipe in evidence.values() for f in by_recipe.values()]
    silent = [target for target in targets if not _any_measured(evidence.get(target, {}))]
    if measured and silent:
        return "device-error"
    if any(v.verdict == "inconclusive" for by_recipe in verdicts.values() for v in by_recipe.values()):
        return "inconclusive"
    return "fail"


def _any_measured(by_recipe: Mapping[str, Evidence]) -> bool:
    """Whether the device has spoken: that nothing fits it is known from the device too."""
    return any(isinstance(found.measured, Measurement) or found.measured.code == UNFIT for found in by_recipe.values())


def _warm(evidence: Evidence) -> Summary:
    assert isinstance(evidence.measured, Measurement)  # only passing candidates are ranked
    return summarize(evidence.measured.warm_ns)


def _is_emulated(evidence: Evidence) -> bool:
    return isinstance(evidence.measured, Measurement) and bool(evidence.measured.conditions.get("emulated"))


def _ranked_by(passing: Mapping[str, Evidence], objective: Objective) -> Objective:
    """What candidates of one target are ranked by: an emulator's speed and memory rank nothing, a file's size does."""
    emulated = any(_is_emulated(found) for found in passing.values())
    return "size" if emulated and objective in ("latency", "memory") else objective


def _cost(evidence: Evidence, objective: Objective) -> float:
    """What the objective wants small."""
    measured = evidence.measured
    assert isinstance(measured, Measurement)
    if objective == "size":
        return float(evidence.artifact.size_bytes)
    if objective == "memory":
        return float(measured.peak_rss_bytes) if not isinstance(measured.peak_rss_bytes, Absent) else float("inf")
    if objective == "quality":
        drops = [value.drop for value in evidence.quality.metrics.values()]
        return max(drops) if drops else -evidence.quality.fidelity["sqnr_db"]
    if objective == "energy":
        energy = energy_per_inference(measured)
        return energy.gross_j if not isinstance(energy, Absent) else float("inf")
    return median_ms(measured, tuple(evidence.again.values()))


def _best(passing: Mapping[str, Evidence], objective: Objective) -> str:
    """The candidate with the least cost; of those level with it in latency, the smallest file."""
    objective = _ranked_by(passing, objective)
    level = _level(passing, objective)
    return min(level, key=lambda recipe: (passing[recipe].artifact.size_bytes, _cost(passing[recipe], objective)))


def _level(passing: Mapping[str, Evidence], objective: Objective) -> list[str]:
    """The best candidate first, then those that noise alone may have put behind it.

    Latencies are level when rounds of processes do not tell them apart; of one process each, when their intervals
    overlap and their medians are close: overlap alone would favour a candidate for having been measured badly, because
    its interval is wide.
    """
    best = min(passing, key=lambda recipe: (_cost(passing[recipe], objective), passing[recipe].artifact.size_bytes))
    if objective != "latency":
        return [best]
    rounds = rounds_of(passing)
    return [best, *(other for other in passing if other != best and _is_level(other, best, passing, rounds))]


def _is_level(other: str, best: str, passing: Mapping[str, Evidence], rounds: Sequence[Round]) -> bool:
    if any(other in found and best in found for found in rounds):
        return not is_slower(other, best, {name: passing[name].measured for name in (other, best)}, rounds)
    fastest, warm = _warm(passing[best]), _warm(passing[other])
    return warm.median <= fastest.median * LEVEL_SHARE and intervals_overlap(fastest, warm)


def _best_over_all(
    evidence: Mapping[str, Mapping[str, Evidence]], recipes: Sequence[str], targets: Sequence[str], objective: Objective
) -> str:
    """With one target its best; with several the one whose worst cost, relative to each target's best, is least."""
    if len(targets) == 1:
        return _best({recipe: evidence[targets[0]][recipe] for recipe in recipes}, objective)

    def regret(recipe: str) -> float:
        worst = 0.0
        for target in targets:
            ranked_by = _ranked_by(evidence[target], objective)
            costs = [_cost(evidence[target][other], ranked_by) for other in recipes]
            least, own = min(costs), _cost(evidence[target][recipe], ranked_by)
            worst = max(worst, own / least if least > 0 else own - least)
        return worst

    return min(recipes, key=lambda recipe: (regret(recipe), evidence[targets[0]][recipe].artifact.size_bytes))


def _explain(
    evidence: Mapping[str, Mapping[str, Evidence]],
    verdicts: Mapping[str, Mapping[str, Verdict]],
    targets: Sequence[str],
    chosen: str | None,
    objective: Objective,
) -> str:
    if chosen is None:
        silent = [target for target in targets if not _any_measured(evidence.get(target, {}))]
        if not any(evidence.values()):
            return "no recipe gave a model"
        if silent:
            return f"no measurement from {', '.join(silent)}"
        verdict_kinds = {v.verdict for by_recipe in verdicts.values() for v in by_recipe.values()}
        if "inconclusive" in verdict_kinds:
            doubts = dict.fromkeys(
                v.reason for by in verdicts.values() for v in by.values() if v.verdict == "inconclusive"
            )
            return f"not enough was measured to say: {'; '.join(doubts)}"
        return "no candidate is within every budget" + (" on every target" if len(targets) > 1 else "")
    best_at = {"latency": "fastest", "size": "smallest", "memory": "leanest", "energy": "thriftiest", "quality": "best"}
    ranked_by = {_ranked_by(evidence[target], objective) for target in targets}
    text = f"{chosen} is the {best_at[objective]} of those that pass"
    if objective not in ranked_by:
        text = f"{chosen} is the smallest of those that pass; {objective} on an emulator ranks nothing"
    elif objective == "latency" and len(targets) == 1:
        by_recipe = verdicts[targets[0]]
        passing = {r: found for r, found in evidence[targets[0]].items() if by_recipe[r].verdict == "pass"}
        level = [recipe for recipe in _level(passing, objective) if recipe != chosen]
        if level:
            text = f"{chosen} is the smallest of the fastest: {', '.join(level)} cannot be told from it by latency"
    if not chosen.endswith("-float32"):
        return text
    others = {r: v for r, v in verdicts[targets[0]].items() if not r.endswith("-float32")}
    slower = [recipe for recipe, verdict in others.items() if verdict.verdict == "pass"]
    failed = [recipe for recipe, verdict in others.items() if verdict.verdict != "pass"]
    parts = []
    if slower:
        words = "pass too but are" if len(slower) > 1 else "passes too but is"
        parts.append(f"{', '.join(slower)} {words} no better in {objective} here")
    if failed:
        parts.append(f"{', '.join(failed)} {'do' if len(failed) > 1 else 'does'} not pass")
    why = "; ".join(parts) or "there was no quantized candidate"
    return f"keep float32 here: {why}"
