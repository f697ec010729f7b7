"""Windows under a power meter, in the benchmark's own process: idle and busy in turns.

The meter is read elsewhere at the same time. All that both share is the monotonic clock, by which the windows say when
they were.
"""

from __future__ import annotations

import time
from typing import Callable

from .wire import Json


class Thinned:
    """At most so many samples, spread evenly over however many there were: when full, every other one goes."""

    def __init__(self, most: int) -> None:
        self.most, self.stride, self.seen = max(2, most), 1, 0
        self.kept: list[int] = []

    def add(self, sample: int) -> None:
        if self.seen % self.stride == 0:
            self.kept.append(sample)
            if len(self.kept) > self.most:
                self.kept, self.stride = self.kept[::2], self.stride * 2
        self.seen += 1


def run_windows(timed: Callable[[], int], plan: Json, most: int) -> tuple[list[Json], list[int]]:
    """Windows as {kind, start_ns, end_ns, runs}, and latencies of the busy ones: time and joules from the same runs.

    Around a window its load lasts for `settle_s` more on both sides: an averaging sensor has then forgotten the load
    before, and its last reading in the window is not yet of the load after.
    """
    clock, settle_s, settle_ns = time.monotonic_ns, plan["settle_s"], int(plan["settle_s"] * 1e9)
    kept = Thinned(most)

    def work(duration_ns: int) -> int:
        runs, end = 0, clock() + duration_ns
        while clock() < end:
            kept.add(timed())
            runs += 1
        return runs

    def idle() -> Json:
        time.sleep(settle_s)
        start = clock()
        time.sleep(plan["idle_s"])
        end = clock()
        time.sleep(settle_s)
        return {"kind": "idle", "start_ns": start, "end_ns": end, "runs": 0}

    windows = [idle()]
    for _ in range(plan["windows"]):
        work(settle_ns)
        start = clock()
        runs = work(int(plan["window_s"] * 1e9))
        windows.append({"kind": "busy", "start_ns": start, "end_ns": clock(), "runs": runs})
        work(settle_ns)
        windows.append(idle())
    return windows, kept.kept
