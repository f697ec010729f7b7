"""Order statistics of latencies and paired differences of scores, each with an interval; deterministic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.records import Summary

# Below six samples no interval of order statistics covers the median with 95 %: 1 − 2·0.5⁶ = 0.97, 1 − 2·0.5⁵ = 0.94.
MIN_FOR_INTERVAL = 6
_LEVEL = 0.95
_RESAMPLES = 2000  # the ends of a 95 % percentile interval rest on the outer 50
_CHUNK = 1 << 20  # resampled values held at once: 8 MB

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDrop:
    """How much worse the candidate is per sample, in the metric's unit: mean and its 95 % bootstrap interval."""

    mean: float
    ci95: tuple[float, float]
    n: int


def summarize(samples_ns: Sequence[int] | NDArray[np.integer]) -> Summary:
    """Summarize warm latencies in the order they were measured; nanoseconds in, milliseconds out.

    The interval is the 95 % percentile interval of the median under the circular block bootstrap (Politis & Romano
    1992), which keeps the autocorrelation that drift and throttling leave in latencies. Its distribution is computed
    exactly, as Efron (1979) does for independent samples, so there is no seed and no resampling noise. Below 6
    samples no such interval exists and it is the whole range. Raises ValueError for no samples.
    """
    values = np.asarray(samples_ns, np.float64) / 1e6
    if values.ndim != 1 or not values.size:
        raise ValueError("there are no samples to summarize")
    low, high = _median_interval(values)
    return Summary(
        median=float(np.median(values)), p90=float(np.quantile(values, 0.9)), ci95=(low, high), n=int(values.size)
    )


def intervals_overlap(first: Summary, second: Summary) -> bool:
    """Say whether two medians cannot be told apart; too few samples never can."""
    if min(first.n, second.n) < MIN_FOR_INTERVAL:
        return True
    return first.ci95[0] <= second.ci95[1] and second.ci95[0] <= first.ci95[1]


def paired_drop(
    reference: ArrayLike, candidate: ArrayLike, better: Literal["higher", "lower"], *, seed: int = 0
) -> PairedDrop:
    """Return the mean per-sample drop, positive when the candidate is worse, with a seeded percentile bootstrap
    interval (Efron & Tibshirani 1993, ch. 13) over the samples, which are taken as independent.

    Both are [n], score by score of the same samples. With one sample the interval is that one drop.
    Raises ValueError when the lengths differ, there are none, or a score is not finite.
    """
    ours, theirs = np.asarray(candidate, np.float64), np.asarray(reference, np.float64)
    if ours.shape != theirs.shape or ours.ndim != 1 or not ours.size:
        raise ValueError(f"paired scores need one length above 0, got {list(theirs.shape)} and {list(ours.shape)}")
    drops = theirs - ours if better == "higher" else ours - theirs
    if not np.isfinite(drops).all():
        raise ValueError("a score is not finite")
    means = _resampled_means(drops, seed)
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return PairedDrop(mean=float(drops.mean()), ci95=(float(low), float(high)), n=int(drops.size))


def _resampled_means(values: Floats, seed: int) -> Floats:
    random, size = np.random.default_rng(seed), values.size
    rows = max(1, _CHUNK // size)
    chunks = [min(rows, _RESAMPLES - start) for start in range(0, _RESAMPLES, rows)]
    return np.concatenate([values[random.integers(0, size, (count, size))].mean(axis=1) for count in chunks])


def _median_interval(values: Floats) -> tuple[float, float]:
    ordered = np.sort(values)
    if values.size < MIN_FOR_INTERVAL:
        return float(ordered[0]), float(ordered[-1])
    length = _block_length(values <= np.median(values))
    tail = (1 - _LEVEL) / 2
    return (
        _quantile_of_median(values, ordered, length, tail, upper=False),
        _quantile_of_median(values, ordered, length, 1 - tail, upper=True),
    )


def _quantile_of_median(values: Floats, ordered: Floats, length: int, level: float, *, upper: bool) -> float:
    """Return the smallest sample x with P*(median ≤ x) ≥ level; of an even count the lower or upper median."""
    blocks = -(-values.size // length)
    half = blocks * length // 2 + 1 if upper else -(-blocks * length // 2)
    first, last = 0, values.size - 1
    while first < last:
        middle = (first + last) // 2
        if _at_least(values <= ordered[middle], length, blocks, half) >= level:
            last = middle
        else:
            first = middle + 1
    return float(ordered[first])


def _at_least(below: NDArray[np.bool_], length: int, blocks: int, half: int) -> float:
    """Return the chance that `blocks` random circular blocks together hold at least `half` samples that are `below`.

    The count in one block has an empirical distribution; that of the sum of independent blocks is its convolution
    power, taken by the Fourier transform. 1e-12 absorbs the transform's rounding at exact levels.
    """
    total = np.concatenate([[0], np.cumsum(np.concatenate([below, below[: length - 1]]))])
    counts = np.bincount(total[length:] - total[:-length], minlength=length + 1)
    size = 1 << int(blocks * length).bit_length()
    chances = np.fft.irfft(np.fft.rfft(counts / below.size, size) ** blocks, size)
    return float(chances[half : blocks * length + 1].sum()) + 1e-12


def _block_length(below: NDArray[np.bool_]) -> int:
    """Choose the block length from the autocorrelation of "below the median", the series the median rests on.

    Automatic selection for the circular block bootstrap: Politis & White (2004), corrected by Patton, Politis &
    White (2009); the constants are theirs.
    """
    size = below.size
    series = below - below.mean()
    run = max(5, round(np.sqrt(np.log10(size))))
    longest = min(size - 1, int(np.ceil(np.sqrt(size))) + run)
    padded = np.fft.rfft(series, 1 << int(2 * size).bit_length())
    covariance = np.fft.irfft(np.abs(padded) ** 2)[: longest + 1] / size
    if covariance[0] <= 1e-12:
        return 1
    small = np.abs(covariance[1:] / covariance[0]) < 2 * np.sqrt(np.log10(size) / size)
    quiet = next((lag for lag in range(len(small)) if small[lag : lag + run].all()), len(small))
    lags = np.arange(1, min(2 * max(quiet, 1), longest) + 1)
    taper = np.minimum(1.0, 2 * (1 - lags / lags[-1])) * covariance[lags]
    slope, spectrum = 2 * float((taper * lags).sum()), float(covariance[0] + 2 * taper.sum())
    if spectrum <= 0:
        return 1
    best = (2 * slope**2 / (4 / 3 * spectrum**2) * size) ** (1 / 3)
    return int(max(1, min(np.ceil(best), np.ceil(min(3 * np.sqrt(size), size / 3)))))
