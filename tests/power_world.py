"""A device whose true energy is known at every moment, and a power sensor that sees it as real ones do."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from targets.records import PowerTrace, Window

Floats = NDArray[np.float64]
BOOT_NS = 5_000_000_000_000  # the device has been up for a while


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Idle, busy, idle, busy … idle, as the benchmark's process makes it; an inference takes `run_s`."""

    idle_w: float
    busy_w: float  # added by inference
    drift_w_per_s: float = 0.0
    windows: int = 5
    window_s: float = 10.0
    idle_s: float = 4.0
    settle_s: float = 0.2
    run_s: float = 0.01

    def stretches(self) -> Iterator[tuple[str, float, float]]:
        """Every window with its settling time, one after the other."""
        now_s = 0.0
        for number in range(2 * self.windows + 1):
            kind, long_s = ("busy", self.window_s) if number % 2 else ("idle", self.idle_s)
            yield kind, now_s, (now_s := now_s + long_s + 2 * self.settle_s)

    @property
    def end_s(self) -> float:
        return list(self.stretches())[-1][2]

    def energy_j(self, moment_s: Floats) -> Floats:
        """True energy since the beginning."""
        edges, worked = [0.0], [0.0]
        for kind, start_s, end_s in self.stretches():
            edges.append(end_s)
            worked.append(worked[-1] + (end_s - start_s) * (kind == "busy"))
        at = np.asarray(moment_s)
        return self.idle_w * at + self.drift_w_per_s * at**2 / 2 + self.busy_w * np.interp(at, edges, worked)

    def made(self) -> tuple[Window, ...]:
        found = []
        for kind, start_s, end_s in self.stretches():
            start_ns, end_ns = (BOOT_NS + round(at * 1e9) for at in (start_s + self.settle_s, end_s - self.settle_s))
            runs = round(self.window_s / self.run_s) if kind == "busy" else 0
            found.append(Window(kind="busy" if kind == "busy" else "idle", start_ns=start_ns, end_ns=end_ns, runs=runs))
        return tuple(found)

    def true_gross_j(self) -> float:
        """Of one inference: the median over the busy windows."""
        busy = [window for window in self.made() if window.kind == "busy"]
        spans = [((w.start_ns - BOOT_NS) * 1e-9, (w.end_ns - BOOT_NS) * 1e-9, w.runs) for w in busy]
        return float(np.median([np.diff(self.energy_j(np.array([a, b])))[0] / runs for a, b, runs in spans]))

    def true_net_j(self) -> float:
        return self.busy_w * self.run_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    interval_s: float = 0.035
    averaging_s: float = 0.035
    step_w: float = 0.0
    jitter: float = 0.0  # of the interval
    lost: float = 0.0  # share of the samples

    def moments_s(self, world: World, random: np.random.Generator) -> Floats:
        count = int((world.end_s + 1) / self.interval_s)
        at = (np.arange(count) + self.jitter * random.uniform(-0.5, 0.5, count)) * self.interval_s
        return np.asarray(np.sort(at[random.uniform(size=count) >= self.lost]))

    def trace(self, world: World, random: np.random.Generator) -> PowerTrace:
        """The mean of the last complete conversion, in the sensor's steps, whenever it is read."""
        at = self.moments_s(world, random)
        complete = np.floor(at / self.averaging_s) * self.averaging_s
        power_w = (world.energy_j(complete) - world.energy_j(complete - self.averaging_s)) / self.averaging_s
        if self.step_w:
            power_w = np.round(power_w / self.step_w) * self.step_w
        return PowerTrace(
            meter="test",
            scope="board",
            time_ns=stamps(at),
            power_w=tuple(power_w.tolist()),
            windows=world.made(),
            interval_s=self.interval_s,
            averaging_s=self.averaging_s,
            resolution_w=self.step_w,
        )


def stamps(at_s: Floats) -> tuple[int, ...]:
    return tuple(BOOT_NS + round(at * 1e9) for at in at_s)


def gaps_s(trace: PowerTrace) -> list[float]:
    return [(after - before) * 1e-9 for before, after in pairwise(trace.time_ns)]
