"""From the sketch of a tensor to the range it is quantized in."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.calibration.entropy import entropy_range
from pipeline.calibration.percentile import percentile_range
from pipeline.calibration.quantization_error import expected_error
from pipeline.calibration.sketch import Floats, Sketch

Method = Literal["min-max", "percentile", "entropy", "mse", "best"]
Range = tuple[float, float]

_LEVELS = 256  # of 8 bits: with 16 there is nothing to gain from cutting


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A tensor's range and the method it comes from."""

    low: float
    high: float
    method: str


def choose(sketch: Sketch, method: Method, percentile: float) -> Chosen:
    """The range of a tensor; it always holds zero, because padding and ReLU need zero to be exact.

    A dead tensor gets [0, 0] and a constant one reaches from zero to its value: both back ends take them.
    """
    if sketch.constant:
        return _chosen((sketch.low, sketch.high), "min-max")
    if method == "best":
        return _best(sketch, percentile)
    return _chosen(_range(sketch, method, percentile), method)


def _range(sketch: Sketch, method: str, percentile: float) -> Range:
    if method == "percentile":
        return percentile_range(sketch, percentile)
    if method == "entropy":
        return entropy_range(sketch, _LEVELS)
    if method == "mse":
        return _least_error(sketch, _MSE)
    return sketch.low, sketch.high


_MSE = 2


def _best(sketch: Sketch, percentile: float) -> Chosen:
    """The method whose range makes the least error in the mean of |e|^p."""
    found = {name: _with_zero(_range(sketch, name, percentile)) for name in ("min-max", "percentile", "entropy", "mse")}
    errors = expected_error(sketch, np.array(list(found.values())), _LEVELS, _BEST_POWER)
    name = list(found)[int(np.argmin(errors))]
    return _chosen(found[name], name)


_BEST_POWER = 3

_SHRINK = np.geomspace(1.0, 2.0**-6, 13)  # 41 % apart
_FINE = np.geomspace(1.3, 1 / 1.3, 13)  # 4.5 % apart, under which the error does not change by 1 %


def _least_error(sketch: Sketch, power: int) -> Range:
    """The range of least mean |e|^power: each end in turn, over a coarse grid and then a fine one."""
    low, high = _with_zero((sketch.low, sketch.high))
    for grid, rounds in ((_SHRINK, 2), (_FINE, 1)):
        for _ in range(rounds):
            if high > 0:
                highs = np.minimum(high * grid if grid is _FINE else sketch.high * grid, sketch.high)
                high = _pick(sketch, np.stack([np.full(len(grid), low), highs], axis=1), power)[1]
            if low < 0:
                lows = np.maximum(low * grid if grid is _FINE else sketch.low * grid, sketch.low)
                low = _pick(sketch, np.stack([lows, np.full(len(grid), high)], axis=1), power)[0]
    return low, high


def _pick(sketch: Sketch, ranges: Floats, power: int) -> Range:
    low, high = ranges[int(np.argmin(expected_error(sketch, ranges, _LEVELS, power)))]
    return float(low), float(high)


def _chosen(found: Range, method: str) -> Chosen:
    low, high = _with_zero(found)
    return Chosen(low=low, high=high, method=method)


def _with_zero(found: Range) -> Range:
    return min(found[0], 0.0), max(found[1], 0.0)
