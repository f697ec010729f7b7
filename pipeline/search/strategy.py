"""Which mixes to try, and which of them to take. Pure: judging a mix is the caller's, by `ask`.

All int8 first. Where that loses too much: how much float a mix needs. Blocks are taken out of int8 in an order, and
the least number of them that meets the target is found by bisection. Four orders are tried: by error, by error per
compute, and, because every border between precisions costs a conversion, from the input on and from the output back.
Of the fastest mix blocks are then put back one by one, the most compute first, while the target is still met.
A bisection assumes that less int8 is never worse; what it ends at has been judged, so only how good the end is
rests on that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.records import BlockError, Precision, Repair, Trial

# Latencies closer than this are not told apart (as in the gate); the smaller file wins then.
LEVEL_SHARE = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """A precision for every block, and what is done to lose less. `name` says how it came about."""

    name: str
    precisions: Mapping[str, Precision]
    repairs: tuple[Repair, ...] = ()

    @property
    def key(self) -> tuple[object, ...]:
        return (tuple(sorted(self.precisions.items())), self.repairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The mixes tried, in order, each with what became of it."""

    mixes: Mapping[str, Mix]  # by name
    trials: tuple[Trial, ...]


Ask = Callable[[Mix], Trial]


@dataclass(slots=True)
class _Ledger:
    """Asks each mix once, and no more than `most` of them."""

    ask: Ask
    most: int
    tried: dict[tuple[object, ...], tuple[Mix, Trial]] = field(default_factory=dict)

    def trial(self, mix: Mix) -> Trial | None:
        """What became of `mix`; None when there is nothing left to try it with."""
        if mix.key not in self.tried:
            if len(self.tried) >= self.most:
                return None
            self.tried[mix.key] = (mix, self.ask(mix))
        return self.tried[mix.key][1]

    def meets(self, mix: Mix) -> bool:
        trial = self.trial(mix)
        return trial is not None and trial.verdict == "meets"


def search(
    ask: Ask,
    ranking: Sequence[BlockError],
    offers: Sequence[Precision],
    repairs: Sequence[tuple[Repair, ...]],
    *,
    most: int,
    by_size: bool = False,
) -> Found:
    """Try at most `most` mixes on the way to the cheapest that meets the target.

    Args:
        ask: judges a mix; its trial has a latency when it meets the target.
        ranking: the blocks, the worst first; those that cannot be int8 say so and stay in float.
        offers: what a block may have instead of int8, cheapest first; the last, float32, must meet any target.
        repairs: combinations to try on the int8 ops.
        by_size: what is made small is the file, not the latency. int4 weights are tried then.
    """
    ledger = _Ledger(ask, most)
    names = [error.block for error in ranking]
    stuck = frozenset(error.block for error in ranking if error.refused)
    floats = [_uniform(names, precision, "float32" if precision == "float32" else precision) for precision in offers]
    ledger.trial(floats[offers.index("float32")])
    all_int8 = _without(names, stuck, "float32", "int8", ())
    base = _best_base(ledger, all_int8, repairs)
    if base is not None:
        if by_size:
            _towards_int4(ledger, base, ranking)
    else:
        repaired = _least_loss(ledger)
        for mix in floats:
            ledger.trial(mix)
        fallback = _fallback(ledger, floats, by_size)
        # Some tools refuse to mix precisions that each alone they can make; float32 is what a model has anyway.
        for precision in dict.fromkeys((fallback, "float32")) if fallback else ():
            if _mixed(ledger, ranking, stuck, precision, repaired, by_size):
                break
    tried = ledger.tried.values()
    return Found(mixes={mix.name: mix for mix, _ in tried}, trials=tuple(trial for _, trial in tried))


def _uniform(names: Sequence[str], precision: Precision, name: str) -> Mix:
    return Mix(name=name, precisions=dict.fromkeys(names, precision))


def _without(
    names: Sequence[str], out: frozenset[str], fallback: Precision, name: str, repairs: tuple[Repair, ...]
) -> Mix:
    precisions: dict[str, Precision] = {n: fallback if n in out else "int8" for n in names}
    return Mix(name=name, precisions=precisions, repairs=repairs if "int8" in precisions.values() else ())


def _best_base(ledger: _Ledger, plain: Mix, repairs: Sequence[tuple[Repair, ...]]) -> Mix | None:
    """All int8, repaired only when it does not do by itself; None when no repair is enough."""
    if ledger.meets(plain):
        return plain
    first = ledger.trial(plain)
    if first is None or first.verdict == "refused" or loss(first) > _BEYOND_REPAIR:
        return None
    for combination in repairs:
        mix = Mix(name=f"int8 + {' + '.join(combination)}", precisions=plain.precisions, repairs=combination)
        if ledger.meets(mix):
            return mix
    return None


# Times what is allowed: repairs take away a half of the loss at best, so what is further off costs evaluations only.
_BEYOND_REPAIR = 4.0


def _least_loss(ledger: _Ledger) -> tuple[Repair, ...]:
    """The repairs of the int8 mix that lost least; they cost nothing at run time."""
    tried = [(mix, trial) for mix, trial in ledger.tried.values() if mix.name.startswith("int8")]
    usable = [(mix, trial) for mix, trial in tried if trial.verdict != "refused"]
    best = min(usable, key=lambda pair: (loss(pair[1]), -pair[1].sqnr_db), default=None)
    return best[0].repairs if best else ()


def _fallback(ledger: _Ledger, floats: Sequence[Mix], by_size: bool) -> Precision | None:
    """What blocks get instead of int8: the cheapest of the precisions that meets the target for all of them."""
    found = [(mix, trial) for mix in floats if (trial := ledger.trial(mix)) is not None and trial.verdict == "meets"]
    if not found:
        return None
    best = min(found, key=lambda pair: cost(pair[1], by_size))[1]
    level = [pair for pair in found if cost(pair[1], by_size) <= cost(best, by_size) * LEVEL_SHARE]
    mix = min(level, key=lambda pair: pair[1].size_bytes)[0]
    return next(iter(mix.precisions.values()))


def _mixed(
    ledger: _Ledger,
    ranking: Sequence[BlockError],
    stuck: frozenset[str],
    fallback: Precision,
    repairs: tuple[Repair, ...],
    by_size: bool,
) -> bool:
    """Search the mixes of int8 and `fallback`; whether the tools could make them."""
    names = [error.block for error in ranking]
    free = [error for error in ranking if error.block not in stuck]
    orders = {
        "worst": free,
        "worst per compute": sorted(free, key=lambda e: -e.loss_share / (e.compute_share + _LIGHT)),
        "first": sorted(free, key=lambda e: e.place),
        "last": sorted(free, key=lambda e: -e.place),
    }
    found: list[tuple[Mix, Trial]] = []
    for label, order in orders.items():

        def mix(count: int, order: Sequence[BlockError] = order, label: str = label) -> Mix:
            out = stuck | {error.block for error in order[:count]}
            return _without(names, out, fallback, f"{count} {label} in {fallback}", repairs)

        best = _least(ledger, mix, len(order), _guess(ledger, order))
        if best is not None and (trial := ledger.trial(best)) is not None:
            found.append((best, trial))
    if found:
        _put_back(ledger, ranking, min(found, key=lambda pair: cost(pair[1], by_size))[0], stuck, by_size)
    made = [trial for mix, trial in ledger.tried.values() if set(mix.precisions.values()) == {"int8", fallback}]
    return any(trial.verdict != "refused" for trial in made)


# Converting at a block's borders costs about what a block of 1 % of the compute does.
_LIGHT = 0.01


def _guess(ledger: _Ledger, order: Sequence[BlockError]) -> int:
    """How many blocks of an order it takes if losses follow error powers: the rest may keep what is allowed."""
    plain = next(trial for mix, trial in ledger.tried.values() if mix.name == "int8")
    left, bearable = 1.0, 1 / max(loss(plain), 1.0)
    for count, error in enumerate(order):
        if left <= bearable:
            return count
        left -= error.loss_share
    return len(order)


def _least(ledger: _Ledger, mix: Callable[[int], Mix], most: int, guess: int) -> Mix | None:
    """The mix with the least count that meets the target, looked for around the guess; None: nothing less than all."""
    fails, holds = 0, most
    at, step = min(max(guess, 1), most - 1), 1
    while fails < at < holds:
        if ledger.meets(mix(at)):
            holds, at = at, at - step
        else:
            fails, at = at, at + step
        step *= 2
        if at <= fails or at >= holds:  # the gap is closed on both sides: halve it from here on
            at = (fails + holds) // 2
    return mix(holds) if holds < most else None


def _put_back(ledger: _Ledger, ranking: Sequence[BlockError], mix: Mix, stuck: frozenset[str], by_size: bool) -> None:
    """Return blocks to int8 one by one, the most compute first, while the target is met."""
    places = {error.block: place + 1 for place, error in enumerate(ranking)}
    for error in sorted(ranking, key=lambda error: -error.compute_share):
        light = error.compute_share < _LIGHT and not by_size
        if light or mix.precisions[error.block] == "int8" or error.block in stuck:
            continue
        fewer = Mix(
            name=f"{mix.name}, #{places[error.block]} not",
            precisions={**mix.precisions, error.block: "int8"},
            repairs=mix.repairs,
        )
        if ledger.meets(fewer):
            mix = fewer


def _towards_int4(ledger: _Ledger, base: Mix, ranking: Sequence[BlockError]) -> None:
    """int4 weights for as many blocks as the target allows, the least sensitive first."""
    order = [error.block for error in reversed(ranking) if base.precisions[error.block] == "int8"]
    holds, fails = 0, len(order) + 1

    def mix(count: int) -> Mix:
        chosen: dict[str, Precision] = dict.fromkeys(order[:count], "int8x4")
        return Mix(
            name=f"{count} best with int4 weights", precisions={**base.precisions, **chosen}, repairs=base.repairs
        )

    while fails - holds > 1:
        middle = len(order) if fails > len(order) and holds == 0 else (holds + fails) // 2
        if ledger.meets(mix(middle)):
            holds = middle
        else:
            fails = middle


def loss(trial: Trial) -> float:
    """The worst of its losses as a share of what is allowed; over 1 is too much."""
    return max((drop.value / drop.allowed if drop.allowed > 0 else drop.value for drop in trial.drops), default=0.0)


def cost(trial: Trial, by_size: bool) -> float:
    """What the search makes small."""
    if by_size or trial.latency_ms is None:
        return float(trial.size_bytes) if by_size else float("inf")
    return trial.latency_ms


def finalists(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Those that meet the target and could be the fastest: measured minutes apart, they are to be compared again."""
    measured = [trial for trial in trials if trial.verdict == "meets" and trial.latency_ms is not None]
    fastest = min((cost(trial, False) for trial in measured), default=0.0)
    return tuple(trial.name for trial in measured if cost(trial, False) <= fastest * _DRIFT)


# A machine's other work may slow one measurement by as much against another.
_DRIFT = 2.0


def choose(trials: Sequence[Trial], by_size: bool) -> str:
    """The cheapest that meets the target; of those level with it, the smallest file."""
    meeting = [trial for trial in trials if trial.verdict == "meets"]
    if not meeting:  # not even float32: its export lost too much, or nothing could be judged
        return trials[0].name
    best = min(meeting, key=lambda trial: (cost(trial, by_size), trial.size_bytes))
    level = [trial for trial in meeting if cost(trial, by_size) <= cost(best, by_size) * LEVEL_SHARE]
    return min(level, key=lambda trial: (trial.size_bytes, cost(trial, by_size))).name


def pareto(trials: Sequence[Trial], by_size: bool) -> tuple[str, ...]:
    """Names of the trials that no other beats in both what they cost and what they lose."""
    usable = [trial for trial in trials if trial.verdict != "refused" and cost(trial, by_size) < float("inf")]

    def beaten(trial: Trial) -> bool:
        here = (cost(trial, by_size), loss(trial))
        return any(
            there != here and there[0] <= here[0] and there[1] <= here[1]
            for other in usable
            for there in [(cost(other, by_size), loss(other))]
        )

    return tuple(t.name for t in sorted(usable, key=lambda t: cost(t, by_size)) if not beaten(t))
