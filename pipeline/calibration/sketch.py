"""The distribution of one tensor in a few kilobytes: exact counts per bucket, exact minimum and maximum.

A bucket is the upper half of a float32's bits: sign, exponent and 7 bits of mantissa. So buckets are dense where
values are small and 0.4 to 0.8 % wide everywhere, nothing has to be known of the range beforehand, and two sketches add
up by adding integers: no order, chunking or merging of the data can change the result.

Bit patterns of negative floats run backwards; an *ordinal* is the pattern made to ascend with the value: 0x8000 is
zero (with −0 and magnitudes under 1e-40, which every quantizer takes for zero), above it positive, below it negative.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BUCKETS = 1 << 16
ZERO = 0x8000  # ordinal of zero
INFINITE = 0x7F80  # bit pattern of infinity; above it are NaN


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sketch:
    """`counts[i]` values fell into the bucket `ordinals[i]`; ordinals ascend and no count is 0.

    `low` and `high` are the extremes themselves, float32 values.
    """

    ordinals: NDArray[np.uint16]
    counts: Integers
    low: float
    high: float

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sketch)
            and (self.low, self.high) == (other.low, other.high)
            and np.array_equal(self.ordinals, other.ordinals)
            and np.array_equal(self.counts, other.counts)
        )

    @property
    def total(self) -> int:
        """How many values there were."""
        return int(self.counts.sum())

    @property
    def dead(self) -> bool:
        """Every value was zero."""
        return self.low == self.high == 0

    @property
    def constant(self) -> bool:
        """Every value was the same."""
        return self.low == self.high

    def edges(self) -> tuple[Floats, Floats]:
        """Where each bucket begins and ends, cut to what was seen. The zero bucket is a point."""
        start, end = bucket_edges(self.ordinals)
        start[0], end[-1] = max(start[0], self.low), min(end[-1], self.high)
        return start, np.maximum(start, end)


def bucket_edges(ordinals: NDArray[Any]) -> tuple[Floats, Floats]:
    """Begin and end of buckets, as values ascend."""
    number = ordinals.astype(np.int64)
    positive = number >= ZERO
    inner = np.where(positive, number - ZERO, ZERO - 1 - number)  # pattern of the bucket's end that is nearer to zero
    near = _from_pattern(inner)
    # The bucket under infinity ends at the largest float, not at infinity.
    far = np.minimum(_from_pattern(np.minimum(inner + 1, INFINITE)), float(np.finfo(np.float32).max))
    start, end = np.where(positive, near, -far), np.where(positive, far, -near)
    zero = number == ZERO
    start[zero] = end[zero] = 0.0
    return start, end


def ordinal_of(value: float) -> int:
    """The bucket of one float32 value."""
    pattern = int(np.float32(value).view(np.uint32)) >> 16
    return _ordinal_of_pattern(pattern)


def from_pattern_counts(patterns: Integers, counts: Integers, low: float, high: float) -> Sketch:
    """A sketch from counts by bit pattern, patterns ascending and each once."""
    used = np.flatnonzero(counts)
    patterns, counts = patterns[used], counts[used]
    negative = int(np.searchsorted(patterns, ZERO))  # from here on: −0 first, then ever farther below it
    zeros = counts[(patterns == 0) | (patterns == ZERO)].sum(keepdims=True)  # −0 is zero
    above = int(negative > 0 and patterns[0] == 0)
    below = negative + int(negative < patterns.size and patterns[negative] == ZERO)
    there = slice(0, int(zeros[0] > 0))
    ordinals = np.concatenate(
        [BUCKETS - 1 - patterns[below:][::-1], np.array([ZERO])[there], patterns[above:negative] + ZERO]
    )
    ascending = np.concatenate([counts[below:][::-1], zeros[there], counts[above:negative]])
    return _sketch(ordinals, ascending, low, high)


def merged(sketches: Iterable[Sketch]) -> Sketch:
    """The sketch of all values of all of them together; there must be one at least."""
    dense = np.zeros(BUCKETS, np.int64)
    low, high = np.inf, -np.inf
    for sketch in sketches:
        dense[sketch.ordinals] += sketch.counts
        low, high = min(low, sketch.low), max(high, sketch.high)
    return _from_dense(dense, low, high)


def clipped(sketch: Sketch, low: float, high: float) -> Sketch:
    """The sketch of the same values clipped to [low, high], exactly: what Relu and Clip make of a tensor."""
    bounded = np.clip(sketch.ordinals, ordinal_of(low), ordinal_of(high))
    dense = np.zeros(BUCKETS, np.int64)
    np.add.at(dense, bounded, sketch.counts)
    ends = np.clip(np.array([sketch.low, sketch.high], np.float32), np.float32(low), np.float32(high))
    return _from_dense(dense, float(ends[0]), float(ends[1]))


def _from_dense(dense: Integers, low: float, high: float) -> Sketch:
    used = np.flatnonzero(dense)
    return _sketch(used, dense[used], low, high)


def _sketch(ordinals: NDArray[Any], counts: Integers, low: float, high: float) -> Sketch:
    # `+ 0.0`: a minimum of −0 is that of 0.
    return Sketch(ordinals=ordinals.astype(np.uint16), counts=counts, low=low + 0.0, high=high + 0.0)


def _from_pattern(pattern: Integers) -> Floats:
    return (pattern.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)


def _ordinal_of_pattern(pattern: int) -> int:
    if pattern < ZERO:
        return pattern + ZERO
    return ZERO if pattern == ZERO else BUCKETS - 1 - pattern
