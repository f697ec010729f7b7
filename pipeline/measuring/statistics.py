"""Latency over several processes, and two models against each other: estimates with intervals, deterministic.

Samples of one process are not independent of each other, and processes differ by more than their samples do: memory
layout, frequency, heat (Kalibera & Jones, "Rigorous benchmarking in reasonable time", ISMM 2013; executorch#8603 saw
17.8 % between calm runs). So the process is the unit: its median is one observation.
"""

from collections.abc import Sequence
from math import exp, log
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.measuring.records import Block, Comparison, Estimate, Latency
from targets.records import Absent

LEAST_PROCESSES = 5
_LEVEL = 0.95
_POWER = 0.8
_RESAMPLES = 4000
_TRIM = 0.2
_BOUND_CONFIDENCE = 0.99  # MLPerf Inference rules, "early stopping"

Floats = NDArray[np.float64]


def process_medians_ms(blocks: Sequence[Block]) -> Floats:
    """One median per process, in the order of time."""
    return np.array([np.median(block.measurement.warm_ns) / 1e6 for block in blocks])


def warm_median(blocks: Sequence[Block]) -> Estimate:
    """The median latency in milliseconds: geometric mean of the processes' medians with Student's interval of their
    logarithms; of a single process, its own range, which says nothing of the next process."""
    medians = process_medians_ms(blocks)
    samples = sum(len(block.measurement.warm_ns) for block in blocks)
    logs = np.log(medians)
    value = exp(logs.mean())
    if len(medians) < 2:
        own = np.array(blocks[0].measurement.warm_ns) / 1e6
        return Estimate(value=value, low=float(own.min()), high=float(own.max()), processes=1, samples=samples)
    half = _t(len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    return Estimate(
        value=value, low=value * exp(-half), high=value * exp(half), processes=len(medians), samples=samples
    )


def latency(blocks: Sequence[Block]) -> Latency:
    """Everything that is said of one model's latency; raises ValueError without a block."""
    if not blocks:
        raise ValueError("there are no blocks to summarize")
    samples = np.concatenate([np.array(block.measurement.warm_ns) for block in blocks]) / 1e6
    medians = process_medians_ms(blocks)
    within = [
        float(np.std(own) / np.mean(own)) for block in blocks if len(own := np.array(block.measurement.warm_ns)) > 1
    ]
    bound = quantile_bound(samples, 0.99)
    return Latency(
        median=warm_median(blocks),
        p90=float(np.quantile(samples, 0.9)),
        p99=float(np.quantile(samples, 0.99)) if len(samples) >= 100 else Absent(reason=_few(samples, 100, "p99")),
        p99_bound=Absent(reason=_few(samples, least_for_bound(0.99), "a bound of p99")) if bound is None else bound,
        within_cv=float(np.median(within)) if within else 0.0,
        between_cv=float(np.std(medians, ddof=1) / np.mean(medians))
        if len(medians) > 1
        else Absent(reason="one process"),
        load_ms=float(np.median([block.measurement.load_ns for block in blocks])) / 1e6,
        first_ms=float(np.median([block.measurement.first_ns for block in blocks])) / 1e6,
    )


def quantile_bound(samples: Floats, share: float) -> float | None:
    """The smallest sample that the true quantile does not exceed, with 99 % confidence; None when there is none.

    The order statistic of rank k is above the quantile when fewer than k samples are below it, and their number is
    binomial: the rule by which MLPerf Inference stops early.
    """
    size = len(samples)
    rank = int(stats.binom.ppf(_BOUND_CONFIDENCE, size, share)) + 1
    return float(np.sort(samples)[rank - 1]) if rank <= size else None


def least_for_bound(share: float) -> int:
    """How many samples a bound of this quantile takes: 459 for p99."""
    return int(np.ceil(log(1 - _BOUND_CONFIDENCE) / log(share)))


def compare(pairs: Sequence[tuple[Block, Block]], margin: float, *, seed: int = 0) -> Comparison:
    """B against A from neighbouring blocks of both: is B slower by more than `margin`?

    The ratio of each pair is one observation, so what drifts over the session (heat, frequency, other processes)
    cancels in it; a pair that throttling cuts in two is an outlier. Hence the 20 % trimmed mean of the log ratios with
    the studentized bootstrap over pairs (Wilcox, "Introduction to Robust Estimation", 2012, ch. 4; standard error by
    Yuen 1974). Non-inferiority: B is "not-slower" when the interval's upper end is within the margin, "slower" when
    its lower end is beyond it; both one-sided at 97.5 %. Raises ValueError below 3 pairs.
    """
    if len(pairs) < 3:
        raise ValueError(f"a comparison takes 3 pairs of blocks or more, there are {len(pairs)}")
    logs = np.log(np.concatenate([process_medians_ms([b]) / process_medians_ms([a]) for a, b in pairs]))
    samples = sum(len(block.measurement.warm_ns) for pair in pairs for block in pair)
    low, high = _studentized(logs, seed)
    (mean,), (error,) = _trimmed(logs[None, :])
    ratio = Estimate(value=exp(mean), low=exp(low), high=exp(high), processes=2 * len(pairs), samples=samples)
    smallest = exp((_t(_freedom(len(logs))) + float(stats.norm.ppf(_POWER))) * float(error)) - 1
    limit = 1 + margin
    verdict, reason = _decided(ratio, limit)
    return Comparison(
        ratio=ratio, margin=margin, smallest_detectable=smallest, verdict=verdict, faster=ratio.high < 1, reason=reason
    )


def _decided(ratio: Estimate, limit: float) -> tuple[Literal["not-slower", "slower", "undecided"], str]:
    shown = f"{ratio.value:.3f}× [{ratio.low:.3f}, {ratio.high:.3f}]"
    if ratio.high <= limit:
        return "not-slower", f"{shown} is within {limit:.3f}×"
    if ratio.low > limit:
        return "slower", f"{shown} is beyond {limit:.3f}×"
    return "undecided", f"{shown} lies on both sides of {limit:.3f}×: measure longer, or allow more"


def _studentized(logs: Floats, seed: int) -> tuple[float, float]:
    size = len(logs)
    (mean,), (error,) = _trimmed(logs[None, :])
    if error == 0:
        return float(mean), float(mean)
    means, errors = _trimmed(logs[np.random.default_rng(seed).integers(0, size, (_RESAMPLES, size))])
    student = _t(_freedom(size))
    # Symmetric, which is more accurate for a location; between Student's, since few pairs repeat themselves in the
    # draws, and twice that, since their tails are ragged. A draw of equal values has no spread to divide by; its
    # distance counts as far out, and not as infinite: between two infinities there is no quantile.
    far = np.full(_RESAMPLES, 2 * student)
    scores = np.minimum(np.divide(np.abs(means - mean), errors, out=far.copy(), where=errors > 0), far)
    half = max(float(np.quantile(scores, _LEVEL)), student) * error
    return float(mean - half), float(mean + half)


def _cut(size: int) -> int:
    """How many values are trimmed at each end."""
    return int(_TRIM * size)


def _freedom(size: int) -> int:
    return size - 2 * _cut(size) - 1


def _trimmed(rows: Floats) -> tuple[Floats, Floats]:
    """Trimmed mean of each row and its standard error from the winsorized variance (Yuen 1974)."""
    size = rows.shape[1]
    cut = _cut(size)
    ordered = np.sort(rows, axis=1)
    means = ordered[:, cut : size - cut].mean(axis=1)
    spread = np.clip(ordered, ordered[:, [cut]], ordered[:, [size - cut - 1]]).std(axis=1, ddof=1)
    return means, spread / ((1 - 2 * cut / size) * np.sqrt(size))


def _t(freedom: int) -> float:
    return float(stats.t.ppf((1 + _LEVEL) / 2, freedom))


def _few(samples: Floats, least: int, what: str) -> str:
    return f"{what} takes {least} samples, there are {len(samples)}"
