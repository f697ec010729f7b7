"""Are the calibration samples good enough? Told from the sketches of halves and smaller parts of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.calibration.engine import LEVELS, Observation
from pipeline.calibration.methods import Method, choose
from pipeline.calibration.sketch import Sketch
from pipeline.records import Coverage

UNSTABLE = 0.2  # of the range: with a fifth more or less, int8 loses or wastes a third of a bit
_SETTLED = 0.05  # of the range: 1/14 of a bit, which no metric sees
_MOST = 0.95  # of the tensors that have to be settled: single ones always move
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """What the parts of the samples say about the whole.

    unstable: tensor → by how much of its range two disjoint halves of the samples differ, over 20 % only.
    coverage: for a growing number of samples, how far ranges were from those of all.
    """

    unstable: Mapping[str, float]
    coverage: tuple[Coverage, ...]


def stability(observation: Observation, method: Method, percentile: float) -> Stability:
    """Compare the ranges of halves, and of 1/32, 1/16, … of the samples.

    By percentile for the methods that search: they would cost eight searches per tensor and say the same.
    """
    cheap: Method = "min-max" if method == "min-max" else "percentile"

    def ranges(sketches: Mapping[str, Sketch]) -> dict[str, tuple[float, float]]:
        chosen = {name: choose(sketch, cheap, percentile) for name, sketch in sketches.items()}
        return {name: (one.low, one.high) for name, one in chosen.items()}

    whole = ranges(observation.sketches())
    halves = ranges(observation.sketches(0, 1)), ranges(observation.sketches(1))
    moved = {name: _moved(halves[0][name], halves[1][name]) for name in whole if all(name in half for half in halves)}
    coverage: list[Coverage] = []
    for level in reversed(range(LEVELS)):
        count, part = observation.samples_in(level), ranges(observation.sketches(level))
        if count and (not coverage or count > coverage[-1].samples):
            shifts = [_moved(part[name], whole[name]) for name in part]
            coverage.append(Coverage(samples=count, shift=float(np.quantile(shifts, _MOST)) if shifts else 0.0))
    return Stability(
        unstable=dict(sorted(((n, s) for n, s in moved.items() if s > UNSTABLE), key=lambda one: -one[1])),
        coverage=tuple(coverage),
    )


def findings(found: Stability, sketches: Mapping[str, Sketch]) -> tuple[str, ...]:
    """What a reader should know, one line each."""
    told = []
    dead = [name for name, sketch in sketches.items() if sketch.dead]
    if dead:
        told.append(f"{len(dead)} dead tensors, zero for every sample: {_list(dead)}")
    constant = [name for name, sketch in sketches.items() if sketch.constant and not sketch.dead]
    if constant:
        told.append(f"{len(constant)} constant tensors: {_list(constant)}")
    if found.unstable:
        told.append(
            f"{len(found.unstable)} of {len(sketches)} tensors: their range differs by more than {UNSTABLE:.0%} "
            f"(up to {max(found.unstable.values()):.0%}) between two halves of the samples, so more would help: "
            f"{_list(list(found.unstable))}"
        )
    enough = sufficient(found.coverage)
    if enough is not None and enough * 2 < found.coverage[-1].samples:
        told.append(
            f"{enough} samples are enough, {found.coverage[-1].samples} were given: the ranges of {_MOST:.0%} of the "
            f"tensors move by less than {_SETTLED:.0%} after that"
        )
    return tuple(told)


def sufficient(coverage: tuple[Coverage, ...]) -> int | None:
    """The number of samples from which on the ranges stay; None when only all of them together give these ranges."""
    enough = None
    for point in reversed(coverage[:-1]):
        if point.shift > _SETTLED:
            break
        enough = point.samples
    return enough


def _moved(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The larger move of an end, as a share of the wider range."""
    width = max(one[1] - one[0], other[1] - other[0])
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) / width if width > 0 else 0.0


def _list(names: list[str]) -> str:
    more = len(names) - _NAMED
    # TFLite names a fused op's tensor by all the ops that went into it.
    return ", ".join(name.partition(";")[0] for name in names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
