"""When a model has warmed up, and how its warm runs are taken."""

from __future__ import annotations

import statistics
import time
from typing import Callable

from .files import first_text

MAX_WARM_SAMPLES = 200_000
# A run this long needs no settling: caches and clocks settle inside it, and every more run costs the user.
SLOW_RUN_NS = 250_000_000
WARMUP_WINDOW = 5  # runs in each of the two medians that are compared
WARMUP_MAX_RUNS = 500
WARMUP_SHARE = 0.3  # of the time for warm samples
CONVERGED = 0.02  # relative change between two windows that counts as standing still


def settled(times_ns: list[int]) -> bool:
    """Whether the rolling median stands still: the last window's against the window's before it."""
    if len(times_ns) < 2 * WARMUP_WINDOW:
        return False
    before = statistics.median(times_ns[-2 * WARMUP_WINDOW : -WARMUP_WINDOW])
    return abs(statistics.median(times_ns[-WARMUP_WINDOW:]) - before) <= CONVERGED * before


def current_khz() -> str:
    return first_text("/sys/devices/system/cpu", "cpu*/cpufreq/scaling_cur_freq")


def warm_up(timed: Callable[[], int], first_ns: int, budget_ns: float) -> list[int]:
    """Runs until the rolling median and the clock stand still, within a budget; one run when runs are slow."""
    times, spent, khz = [timed()], 0, ""
    spent = times[0]
    while max(first_ns, times[-1]) < SLOW_RUN_NS and spent + times[-1] <= budget_ns and len(times) < WARMUP_MAX_RUNS:
        if len(times) % WARMUP_WINDOW == 0:
            khz_before, khz = khz, current_khz()
            if settled(times) and khz == khz_before:
                break
        times.append(timed())
        spent += times[-1]
    return times


def warm_samples(timed: Callable[[], int], max_s: float, least: int, most: int) -> list[int]:
    times: list[int] = []
    spent_ns = 0
    while len(times) < max(1, least) or (len(times) < most and spent_ns + times[-1] <= max_s * 1e9):
        times.append(timed())
        spent_ns += times[-1]
    return times


def duty_cycled(timed: Callable[[], int], pause_s: float, max_s: float, least: int, most: int) -> list[int]:
    """Runs with a pause before each, as in an application used now and then: caches and clocks are cold again."""
    times: list[int] = []
    begun = time.monotonic()
    while len(times) < max(1, least) or (len(times) < most and time.monotonic() - begun + pause_s <= max_s):
        time.sleep(pause_s)
        times.append(timed())
    return times


def typical_us(times: list[float]) -> float:
    """The mean of the middle half: finer than whole microseconds, and not moved by a run that was interrupted."""
    ordered, cut = sorted(times), len(times) // 4
    return statistics.fmean(ordered[cut : len(ordered) - cut]) if ordered else 0.0
