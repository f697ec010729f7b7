"""What a run says of latencies: by one process where that is beyond doubt, else by rounds of processes that take turns.

Processes differ by more than their samples do, and whatever else a machine does hits one of two processes that ran one
after the other (executorch#8603). So a verdict that would turn on such a difference is asked again: each round measures
the candidates in question once more, in random order, and two of one round are neighbours in time. Pure.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from pipeline.measuring.records import Block, Comparison
from pipeline.quality.statistics import intervals_overlap, summarize
from pipeline.recipes.grammar import float_of
from pipeline.records import Measured, Objective
from pipeline.stages.judging import LEAST_PROCESSES, Budgets, Evidence, beyond_doubt, judge, middle
from targets.records import Failed, Measurement

Round = Mapping[str, Measurement]

# Medians of two benchmark processes differ by a few percent.
LEVEL_SHARE = 1.05
MOST_ROUNDS = 4  # with the first processes five, the least that says how much processes differ
# A 90th percentile within a tenth of its budget may be on the other side of it in the next process.
_CLOSE_SHARE = 0.9


def is_slower(one: str, other: str, first: Mapping[str, object], rounds: Sequence[Round]) -> bool | None:
    """Whether `one` takes more than 5 % longer than `other`; None while more rounds would tell.

    Where only single processes are known, a difference that more rounds would have to confirm is not said.

    Args:
        first: the processes of all recipes, one each, in the order of the recipes.
    """
    ours, theirs = first[one], first[other]
    assert isinstance(ours, Measurement) and isinstance(theirs, Measurement)
    met = [(found[other], found[one]) for found in rounds if one in found and other in found]
    if not met:
        ratio, apart = _ratio(theirs, ours), _apart(ours, theirs)
        if ratio > beyond_doubt(ours, theirs) and apart:
            return True
        return None if ratio > LEVEL_SHARE and apart else False
    if median([_ratio(theirs, ours), *(_ratio(*pair) for pair in met)]) <= LEVEL_SHARE:
        return False
    found = _compared(theirs, ours, met)
    if found is not None and (found.ratio.low > 1 or len(met) >= MOST_ROUNDS):
        return found.ratio.value > LEVEL_SHARE and found.ratio.low > 1
    return None


def latency_ratio(one: str, other: str, first: Mapping[str, object], rounds: Sequence[Round]) -> float | None:
    """Of the median latencies, of neighbouring processes where there are any; None without both."""
    ours, theirs = first.get(one), first.get(other)
    if not isinstance(ours, Measurement) or not isinstance(theirs, Measurement):
        return None
    met = [(found[other], found[one]) for found in rounds if one in found and other in found]
    found = _compared(theirs, ours, met) if met else None
    return found.ratio.value if found else _ratio(theirs, ours)


def median_ms(found: Measurement, again: Sequence[Measurement]) -> float:
    """Median over the processes of their medians."""
    return median(summarize(each.warm_ns).median for each in (found, *again))


def rounds_of(by_recipe: Mapping[str, Evidence]) -> list[Round]:
    """The rounds that one target's evidence is of."""
    count = max((number + 1 for found in by_recipe.values() for number in found.again), default=0)
    return [{name: e.again[number] for name, e in by_recipe.items() if number in e.again} for number in range(count)]


def contested(by_recipe: Mapping[str, Evidence], budgets: Budgets, objective: Objective) -> set[str]:
    """The candidates that the next round has to measure for this target's verdicts; none in the ordinary case."""
    rounds = rounds_of(by_recipe)
    first = {name: found.measured for name, found in by_recipe.items() if isinstance(found.measured, Measurement)}
    real = {name for name, found in first.items() if not found.conditions.get("emulated")}
    if len(rounds) >= MOST_ROUNDS:
        return set()
    asked: set[str] = set()
    for name in real:
        base = float_of(name)
        if base != name and base in real and is_slower(name, base, first, rounds) is None:
            asked |= {name, base}
        if budgets.latency_p90_ms is not None and _near(name, first, rounds, budgets.latency_p90_ms):
            asked.add(name)
    if objective == "latency":
        passing = [name for name in real if judge(by_recipe[name], budgets, objective).verdict == "pass"]
        asked |= _rivals(passing, first, rounds)
    return asked


def _rivals(passing: Sequence[str], first: Mapping[str, Measurement], rounds: Sequence[Round]) -> set[str]:
    """The fastest of those that pass and the next, where one process of each put it there."""
    if len(passing) < 2:
        return set()
    fastest, rival, *_ = sorted(passing, key=lambda name: median_ms(first[name], again(name, rounds)))
    return {fastest, rival} if is_slower(rival, fastest, first, rounds) is None else set()


def again(name: str, rounds: Sequence[Round]) -> list[Measurement]:
    """The further processes of a recipe."""
    return [found[name] for found in rounds if name in found]


def told(found: Measured, name: str) -> Measurement | Failed:
    """The process that stands for a candidate in reports: of several the one in the middle."""
    first = found.results[name]
    return first if isinstance(first, Failed) else middle([first, *again(name, found.rounds)])


def _near(name: str, first: Mapping[str, Measurement], rounds: Sequence[Round], limit_ms: float) -> bool:
    """Whether processes may be found on both sides of the limit; three on one side are enough to stop."""
    p90s = [summarize(each.warm_ns).p90 for each in (first[name], *again(name, rounds))]
    if len(p90s) == 1:
        return (
            p90s[0] > _CLOSE_SHARE * limit_ms and min(first[name].warm_ns) / 1e6 <= beyond_doubt(first[name]) * limit_ms
        )
    over = sum(p90 > limit_ms for p90 in p90s)
    return max(over, len(p90s) - over) < LEAST_PROCESSES


def _ratio(theirs: Measurement, ours: Measurement) -> float:
    return summarize(ours.warm_ns).median / summarize(theirs.warm_ns).median


def _apart(ours: Measurement, theirs: Measurement) -> bool:
    """By their own samples; what is many times slower has few, and their interval says nothing."""
    if min(ours.warm_ns) > max(theirs.warm_ns):
        return True
    return not intervals_overlap(summarize(ours.warm_ns), summarize(theirs.warm_ns))


def _compared(
    theirs: Measurement, ours: Measurement, met: Sequence[tuple[Measurement, Measurement]]
) -> Comparison | None:
    """As `deploy compare` does; None before there are enough pairs."""
    pairs = [(theirs, ours), *met]
    if len(pairs) < LEAST_PROCESSES:
        return None
    # SciPy, whose import takes longer than most runs need for all of their gate.
    from pipeline.measuring.statistics import compare

    blocks = [
        (Block(label="A", start_s=at, measurement=a), Block(label="B", start_s=at, measurement=b))
        for at, (a, b) in enumerate(pairs)
    ]
    return compare(blocks, LEVEL_SHARE - 1)
