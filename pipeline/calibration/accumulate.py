"""Counting values into sketches: the inner loop of calibration."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.calibration.sketch import BUCKETS, Integers, Sketch, from_pattern_counts

# 2 MB of keys at a time: they stay in the second-level cache between the cast and the count.
_CHUNK = 1 << 18
# Counts are kept in pages of half a power of two (64 mantissas); a tensor uses 40 to 100 of the 1,024.
_PAGE = 64
_WIDEST = np.iinfo(np.uint32).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Values of one tensor: counts by bit pattern (whole pages, up to the largest pattern), and the extremes."""

    binned: Integers
    size: int
    low: float
    high: float

    @property
    def finite(self) -> bool:
        """No NaN and no infinity among them: an extreme would be it."""
        return math.isfinite(self.low) and math.isfinite(self.high)


class Binner:
    """Counts float32 values by the upper 16 bits of their pattern. Owns the buffer of keys: one serves all tensors."""

    def __init__(self) -> None:
        self._keys = np.empty(_CHUNK, np.intp)

    def count(self, values: NDArray[np.float32]) -> Counted:
        """Count `values`, of which there must be one at least."""
        flat = np.ascontiguousarray(values).reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        # Patterns with the sign bit are above all others. −0 may hide behind an extreme of 0.
        largest = _pattern(low if low < 0 else high)
        halves = flat.view(np.uint16)[_UPPER::2]
        binned = np.zeros(0, np.int64)
        for start in range(0, halves.size, _CHUNK):
            part = halves[start : start + _CHUNK]
            keys = self._keys[: part.size]
            np.copyto(keys, part, casting="unsafe")  # np.bincount would do it into fresh memory, which costs twice
            binned = _sum(binned, np.bincount(keys, minlength=_whole_pages(largest + 1)))
        if binned.size % _PAGE:
            binned = _sum(np.zeros(_whole_pages(binned.size), np.int64), binned)
        return Counted(binned=binned, size=flat.size, low=low, high=high)


# Where the upper half of a float32 lies among two uint16.
_UPPER = 1 if np.little_endian else 0


class Accumulator:
    """The growing sketch of one tensor: memory depends on the spread of its values, not on how many there are."""

    def __init__(self) -> None:
        self._row = np.full(BUCKETS // _PAGE, -1, np.int16)  # page -> row of counts, −1: not used
        self._counts: NDArray[Any] = np.zeros((0, _PAGE), np.uint32)
        self._total = 0
        self._low, self._high = np.inf, -np.inf

    def add(self, counted: Counted) -> None:
        """Take in what `Binner` has counted."""
        self._total += counted.size
        if self._total > _WIDEST and self._counts.dtype == np.uint32:
            self._counts = self._counts.astype(np.int64)
        pages = counted.binned.reshape(-1, _PAGE)
        used = np.flatnonzero(np.bitwise_or.reduce(pages, axis=1))
        rows = self._row[used]
        if (rows < 0).any():
            new = used[rows < 0]
            self._row[new] = np.arange(len(self._counts), len(self._counts) + len(new))
            self._counts = np.concatenate([self._counts, np.zeros((len(new), _PAGE), self._counts.dtype)])
            rows = self._row[used]
        self._counts[rows] += pages[used].astype(self._counts.dtype)
        self._low, self._high = min(self._low, counted.low), max(self._high, counted.high)

    def sketch(self) -> Sketch:
        """What has been taken in so far."""
        pages = np.flatnonzero(self._row >= 0)
        patterns = (pages[:, None] * _PAGE + np.arange(_PAGE)).reshape(-1)
        counts = self._counts[self._row[pages]].reshape(-1).astype(np.int64)
        return from_pattern_counts(patterns, counts, self._low, self._high)


def _pattern(value: float) -> int:
    return int(np.float32(value).view(np.uint32)) >> 16


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _sum(one: Integers, other: Integers) -> Integers:
    """Of counts of two lengths; the longer array is reused."""
    short, long = sorted((one, other), key=len)
    long[: short.size] += short
    return long
