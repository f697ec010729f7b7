"""Whether the next wave may begin. Pure: a verdict can be recomputed from the journal."""

from collections.abc import Sequence

import numpy as np

from pipeline.quality.statistics import paired_drop
from pipeline.quantities import fine_percent
from pipeline.rollout.records import ANSWER, BAD, GOOD, GateVerdict, Member, Pair, Policy

# A share of 10 % allows 1 of 10 devices although 0.1 · 10 is a bit more in binary.
_ROUNDING = 1e-9
# Below six pairs a bootstrap interval of their mean is hardly wider than the pairs themselves.
MIN_PAIRS = 6


def judge(wave: Sequence[Member], members: Sequence[Member], policy: Policy) -> GateVerdict:
    """Judge a wave that is over: its share of failures, its answers, its speed, and the error budget of them all."""
    tried = [member for member in wave if member.state in GOOD | BAD]
    bad = [member for member in tried if member.state in BAD]
    wrong = [member.device for member in bad if member.code == ANSWER]
    reasons = [f"wrong answers on {_names(wrong)}"] if wrong else []
    notes: list[str] = []
    if bad and len(bad) > policy.max_failures * len(tried) + _ROUNDING:
        reasons.append(f"{len(bad)} of its {_devices(len(tried))} failed, allowed are {_percent(policy.max_failures)}")
    failed = sum(member.state in BAD and member.wave > 0 for member in members)
    told = bool(reasons) and failed == len(bad)  # the same devices need not be counted twice
    if failed and not told and failed > policy.error_budget * len(members) + _ROUNDING:
        allowed = _percent(policy.error_budget)
        reasons.append(f"{failed} of all {_devices(len(members))} failed, the error budget is {allowed}")
    if pairs := [pair for member in wave for pair in member.pairs]:
        worse, found = slower(pairs, policy.p90_margin)
        (reasons if worse else notes).append(found)
    if not tried:
        notes.append("none of its devices was reached, so it tells nothing")
    return GateVerdict(passed=not reasons, reasons=tuple(reasons), notes=tuple(notes))


def spent(wave: Sequence[Member], policy: Policy) -> bool:
    """Whether a wave that still goes on cannot pass any more, however well the rest of it does."""
    bad = [member for member in wave if member.state in BAD]
    return any(member.code == ANSWER for member in bad) or len(bad) > policy.max_failures * len(wave) + _ROUNDING


def slower(pairs: Sequence[Pair], margin: float) -> tuple[bool, str]:
    """Whether the new release is slower by more than the margin, beyond doubt; and what was found, in words.

    Each pair is one block of either, beside each other in time, so that drift cancels. What is judged is the mean of
    the logarithm of their ratio with its 95 % interval: no worse when its upper end is within the margin, worse when
    its lower end is beyond, else undecided, which stops nothing but is told.
    """
    logs = np.log([pair.after_ms / pair.before_ms for pair in pairs])
    found = paired_drop(np.zeros(len(logs)), logs, "lower")
    low, middle, high = (float(np.expm1(value)) for value in (found.ci95[0], found.mean, found.ci95[1]))
    told = f"p90 {fine_percent(middle)} [{fine_percent(low)}, {fine_percent(high)}] against the release before"
    if len(pairs) < MIN_PAIRS:
        return False, f"{told}: {len(pairs)} pairs are too few to judge"
    if low > margin:
        return True, f"{told}: slower than the margin of {_percent(margin)}"
    if high <= margin:
        return False, f"{told}: no worse than the margin of {_percent(margin)}"
    # What the width of this interval could have told from no difference at all.
    detectable = float(np.expm1((found.ci95[1] - found.ci95[0]) / 2))
    return False, f"{told}: undecided; a difference below {_percent(detectable)} cannot be seen in {len(pairs)} pairs"


def _percent(share: float) -> str:
    return f"{round(100 * share, 1):g} %"


def _devices(count: int) -> str:
    return f"{count} device" + "s" * (count != 1)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
