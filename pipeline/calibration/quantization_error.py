"""The error that quantizing a tensor to a range would make, computed from its sketch.

Within a bucket values are taken as evenly spread, and then the mean of |x − Q(x)|^p has a closed form: an
antiderivative of the distance to the nearest multiple of the step, and a power for what is clipped. No value has to be
kept.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.calibration.sketch import Floats, Sketch


def expected_error(sketch: Sketch, ranges: NDArray[Any], levels: int, power: int) -> Floats:
    """Mean of |x − Q(x)|^power for each of `ranges` [n, 2], which hold zero; Q rounds to `levels` values in the range.

    The zero point is taken as exact (a multiple of the step), as both back ends make it.
    """
    start, end = sketch.edges()
    weight = sketch.counts / sketch.total
    errors = np.empty(len(ranges))
    for number, (low, high) in enumerate(np.asarray(ranges, np.float64)):
        step = (high - low) / (levels - 1)
        if step <= 0:
            errors[number] = float(weight @ np.maximum(np.abs(start), np.abs(end)) ** power)
            continue
        # Values beyond the range fall on its ends, as values inside fall on multiples of the step.
        first, last = np.clip(start, low, high), np.clip(end, low, high)
        rounded = _rounding(last / step, power) - _rounding(first / step, power)
        over = _power(end - high, power) - _power(start - high, power)
        under = _power(low - start, power) - _power(low - end, power)
        whole = rounded * step ** (power + 1) + (over + under) / (power + 1)
        width = end - start
        point = np.abs(start - np.clip(np.rint(start / step) * step, low, high)) ** power
        mean = np.where(width > 0, whole / np.where(width > 0, width, 1.0), point)
        errors[number] = float(weight @ np.maximum(mean, 0.0))
    return errors


def _rounding(position: Floats, power: int) -> Floats:
    """Antiderivative of |u − rint(u)|^power."""
    whole = np.rint(position)
    rest = position - whole
    # One whole step: twice the integral of u^power from 0 to 1/2.
    per_step = 2 * 0.5 ** (power + 1) / (power + 1)
    return whole * per_step + _raised(np.abs(rest), power) * rest / (power + 1)


def _power(distance: Floats, power: int) -> Floats:
    return _raised(np.maximum(distance, 0.0), power + 1)


def _raised(base: Floats, power: int) -> Floats:
    """base ** power by multiplication: np.power takes ten times as long."""
    product = base
    for _ in range(power - 1):
        product = product * base
    return product
