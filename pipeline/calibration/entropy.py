"""The range that loses least information: Kullback-Leibler divergence, as TensorRT's calibrator.

S. Migacz, 8-bit Inference with TensorRT, GTC 2017.
"""

import numpy as np

from pipeline.calibration.sketch import Floats, Sketch

_BINS = 2048  # of the histogram of magnitudes, as in the talk
_STRIDE = 16  # of the thresholds tried: 1/128 of the range apart, under the resolution of a bucket


def entropy_range(sketch: Sketch, levels: int) -> tuple[float, float]:
    """The range [−t, t], cut to what occurs, whose quantized distribution of magnitudes is nearest to the true one.

    Exact zeros are left out: they are represented exactly whatever the range, and after a ReLU they would outweigh all.
    """
    largest = max(abs(sketch.low), abs(sketch.high))
    signed = sketch.low < 0 < sketch.high
    kept = levels // 2 if signed else levels
    histogram = _magnitudes(sketch, largest)
    if histogram.sum() == 0 or kept >= _BINS:
        return sketch.low, sketch.high
    stops = np.arange(kept, _BINS + 1, _STRIDE)
    divergences = [_divergence(histogram, int(stop), kept) for stop in stops]
    threshold = float(stops[int(np.argmin(divergences))]) / _BINS * largest
    return max(sketch.low, -threshold), min(sketch.high, threshold)


def _magnitudes(sketch: Sketch, largest: float) -> Floats:
    """Counts in equal bins of |x|, values spread evenly over their bucket."""
    start, end = sketch.edges()
    edges = np.linspace(0, largest, _BINS + 1)
    histogram = np.zeros(_BINS)
    for sign in (-1.0, 1.0):
        side = (start + end) * sign > 0
        if not side.any():
            continue
        bounds = np.stack([start[side], end[side]]) * sign
        near, far = bounds.min(axis=0), bounds.max(axis=0)
        order = np.argsort(near)
        cumulative = np.concatenate([[0.0], sketch.counts[side][order].cumsum()])
        # A point bucket would divide by zero in the interpolation: np.interp takes its right end.
        places = np.concatenate([near[order][:1], np.maximum.accumulate(far[order])])
        histogram += np.diff(np.interp(edges, places, cumulative, left=0.0))
    return histogram


def _divergence(histogram: Floats, stop: int, levels: int) -> float:
    """KL(P ‖ Q): P is the histogram cut at `stop`, what lies beyond in its last bin; Q the same in `levels` levels."""
    reference = histogram[:stop].copy()
    reference[-1] += histogram[stop:].sum()
    begins = np.arange(levels) * stop // levels
    occupied = histogram[:stop] > 0
    sums = np.add.reduceat(histogram[:stop], begins)
    filled = np.add.reduceat(occupied.astype(np.float64), begins)
    means = np.divide(sums, filled, out=np.zeros(levels), where=filled > 0)
    quantized = np.where(occupied, np.repeat(means, np.diff([*begins, stop])), 0.0)
    share = reference > 0
    if not quantized.any() or (quantized[share] == 0).any():
        return float("inf")  # P has mass where Q has none
    p, q = reference[share] / reference.sum(), quantized[share] / quantized.sum()
    return float(np.sum(p * np.log(p / q)))
