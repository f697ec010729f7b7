"""Counting values into sketches: the inner loop of calibration."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.calibration.sketch import BUCKETS, INFINITE, ZERO, Integers, Sketch, from_pattern_counts

# 2 MB of keys at a time: they stay in the second-level cache between the cast and the count.
_CHUNK = 1 << 18
# Counts are kept in pages of one power of two (128 mantissas); a tensor uses 20 to 60 of the 512.
_PAGE = 128


class Binner:
    """Counts float32 values by the upper 16 bits of their pattern. Owns the buffers, so one serves all tensors."""

    def __init__(self) -> None:
        self._keys = np.empty(_CHUNK, np.intp)
        self._binned = np.zeros(BUCKETS, np.int64)
        self._used = 0

    def count(self, values: NDArray[np.float32]) -> tuple[Integers, bool]:
        """Counts by pattern, in a buffer that the next call overwrites, and whether all values are finite."""
        self._binned[: self._used] = 0
        self._used = 0
        halves = np.ascontiguousarray(values).reshape(-1).view(np.uint16)[_UPPER::2]
        for start in range(0, halves.size, _CHUNK):
            part = halves[start : start + _CHUNK]
            keys = self._keys[: part.size]
            np.copyto(keys, part, casting="unsafe")  # np.bincount would do it into fresh memory, which costs twice
            found = np.bincount(keys)
            self._binned[: found.size] += found
            self._used = max(self._used, found.size)
        infinite = self._binned[INFINITE:ZERO].any() or self._binned[ZERO + INFINITE :].any()
        # Up to the end of the last page.
        return self._binned[: -(-self._used // _PAGE) * _PAGE], not infinite


# Where the upper half of a float32 lies among two uint16.
_UPPER = 1 if np.little_endian else 0


class Accumulator:
    """The growing sketch of one tensor: memory depends on the spread of its values, not on how many there are."""

    def __init__(self) -> None:
        self._row = np.full(BUCKETS // _PAGE, -1, np.int64)  # page -> row of counts, −1: not used
        self._counts = np.zeros((0, _PAGE), np.int64)
        self._low, self._high = np.inf, -np.inf

    def add(self, binned: Integers, values: NDArray[Any]) -> None:
        """Take in values that `Binner` has counted."""
        pages = binned.reshape(-1, _PAGE)
        used = np.flatnonzero(np.bitwise_or.reduce(pages, axis=1))
        rows = self._row[used]
        if (rows < 0).any():
            new = used[rows < 0]
            self._row[new] = np.arange(len(self._counts), len(self._counts) + len(new))
            self._counts = np.concatenate([self._counts, np.zeros((len(new), _PAGE), np.int64)])
            rows = self._row[used]
        self._counts[rows] += pages[used]
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def sketch(self) -> Sketch:
        """What has been taken in so far."""
        pages = np.flatnonzero(self._row >= 0)
        patterns = (pages[:, None] * _PAGE + np.arange(_PAGE)).reshape(-1)
        return from_pattern_counts(patterns, self._counts[self._row[pages]].reshape(-1), self._low, self._high)
