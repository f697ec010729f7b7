"""What a device settles at under sustained load, and when: from the slope of its latencies over time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.measuring.records import Block
from targets.records import Absent

SETTLED_SHARE = 0.02  # change over the rest of the session that counts as standing still
_LEAST = 6  # blocks of which a slope can be told from noise
_LAST = 3  # blocks that make a level
_CHANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The steady state of a sustained session."""

    first_ms: float  # of the first block
    steady_ms: float  # median of the blocks after it settled
    after_s: float  # since the session began
    throttled_after_s: float | Absent  # when latency first left the beginning's by more than 5 %, and stayed


def curve(blocks: Sequence[Block]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(seconds since the session began, median latency in ms) of each block."""
    times = np.array([block.start_s for block in blocks])
    return times, np.array([np.median(block.measurement.warm_ns) / 1e6 for block in blocks])


def settled(blocks: Sequence[Block]) -> Settled | Absent:
    """The earliest block from which on latency stands still.

    That is: the Theil-Sen slope of the rest changes it by under 2 %, or by no more than chance explains (Mann-Kendall);
    a throttled CPU swings between two clocks. And no step divides it, which a slope does not see when most of the rest
    lies before it. Absent when too few blocks follow any such point: the session was too short.
    """
    times, medians = curve(blocks)
    for start in range(len(blocks) - _LEAST + 1):
        rest_t, rest = times[start:], medians[start:]
        if _flat(rest_t, rest) and _level(rest) and not _stepped(rest):
            return Settled(
                first_ms=float(medians[0]),
                steady_ms=float(np.median(rest)),
                after_s=float(times[start]),
                throttled_after_s=_left(times, medians),
            )
    span_s = times[-1] - times[0] if len(times) else 0.0
    return Absent(reason=f"not within {span_s:.0f} s: measure longer (--max-time)")


def _flat(times: NDArray[np.float64], rest: NDArray[np.float64]) -> bool:
    if not np.ptp(rest):
        return True
    change = abs(float(stats.theilslopes(rest, times)[0])) * float(np.ptp(times))
    return change <= SETTLED_SHARE * float(np.median(rest)) or float(stats.kendalltau(times, rest).pvalue) > _CHANCE


def _level(rest: NDArray[np.float64]) -> bool:
    """Whether the first block of the rest belongs to it: a single step is no slope."""
    others = rest[1:]
    return bool(
        abs(rest[0] - np.median(others))
        <= max(3 * float(stats.median_abs_deviation(others)), SETTLED_SHARE * float(np.median(others)))
    )


def _stepped(rest: NDArray[np.float64]) -> bool:
    """Whether the rest is of two levels, one after the other: Mann-Whitney at every place where it may be divided,
    by Bonferroni for all of them; or its last three blocks are none of it."""
    size = len(rest)
    least_step = SETTLED_SHARE * float(np.median(rest))
    spread = 3 * float(stats.median_abs_deviation(rest))
    if abs(float(np.median(rest[-_LAST:]) - np.median(rest))) > max(least_step, spread):
        return True
    before = np.arange(_LAST, size - _LAST + 1)
    ranks = np.cumsum(stats.rankdata(rest))[before - 1]
    scores = (ranks - before * (size + 1) / 2) / np.sqrt(before * (size - before) * (size + 1) / 12)
    place = int(before[np.argmax(np.abs(scores))])
    chance = 2 * float(stats.norm.sf(np.max(np.abs(scores)))) * len(before)
    return chance < _CHANCE and abs(float(np.median(rest[place:]) - np.median(rest[:place]))) > least_step


def _left(times: NDArray[np.float64], medians: NDArray[np.float64]) -> float | Absent:
    begin = float(np.median(medians[:3]))
    away = medians > 1.05 * begin
    for place in range(len(away)):
        if away[place] and np.median(away[place : place + _LAST]) and away[place:].mean() > 0.8:
            return float(times[place])
    return Absent(reason="latency never left its beginning by 5 %")
