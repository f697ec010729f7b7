"""Order statistics of a sketch."""

import math

from pipeline.calibration.sketch import Sketch


def order_statistic(sketch: Sketch, rank: int) -> float:
    """The value of rank 1 … total in ascending order.

    The bucket is known exactly and the values are taken as spread evenly in it, so the error is less than the bucket's
    width: 0.8 % of the value at worst (7 bits of mantissa). The first and last rank are exact.
    """
    cumulative = sketch.counts.cumsum()
    place = int(cumulative.searchsorted(rank))
    start, end = sketch.edges()
    before = int(cumulative[place - 1]) if place else 0
    count = int(sketch.counts[place])
    if rank == 1:
        return sketch.low
    if rank == before + count == sketch.total:
        return sketch.high
    return float(start[place] + (end[place] - start[place]) * (rank - before - 0.5) / count)


def percentile_range(sketch: Sketch, percentile: float) -> tuple[float, float]:
    """The range that keeps `percentile` % of the values and cuts half of the rest on either side.

    The definition of onnxruntime's and NVIDIA's percentile calibration (Wu et al. 2020, arXiv:2004.09602, §4).
    """
    total = sketch.total
    cut = (1 - percentile / 100) / 2
    high_rank = min(total, max(1, math.ceil((1 - cut) * total)))
    low_rank = total + 1 - high_rank
    return order_statistic(sketch, low_rank), order_statistic(sketch, high_rank)
