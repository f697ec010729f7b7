"""Ranges that training learned, brought to the tensors of an exported model.

A converter renames, fuses and transposes, so that a name says little about which tensor of the export is which of the
source. What a tensor holds does: for one and the same sample, its values have the same extremes, mean and root mean
square on both sides, up to the rounding of float32, and the same count. That of a tensor which only repeats another
(nearest upsampling) is a multiple, and it must get the same range, or its values would be rounded twice.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.calibration.observer import Array, Take

# Of the root mean square: float32 kernels that add in another order differ by 1e-6; tensors that differ in fact by more
# than this even where a normalization makes their statistics alike.
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What is the same of a tensor whatever its layout."""

    count: int
    low: float
    high: float
    mean: float
    rms: float

    def matches(self, other: "Fingerprint") -> bool:
        """Whether these can be of one tensor. Constant tensors match nothing: many are alike."""
        slack = _TOLERANCE * max(self.rms, other.rms)
        fewer, more = sorted((self.count, other.count))
        if more % fewer or self.low == self.high:
            return False
        pairs = ((self.low, other.low), (self.high, other.high), (self.mean, other.mean), (self.rms, other.rms))
        return all(abs(a - b) <= slack for a, b in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnedRange:
    """The range learned for the tensor `name` of the source, and what that holds for the first calibration sample."""

    name: str
    low: float
    high: float
    holds: Fingerprint


def fingerprint(values: Array) -> Fingerprint:
    """The fingerprint of a tensor that is not empty."""
    exact = values.astype(np.float64)
    return Fingerprint(
        count=values.size,
        low=float(exact.min()),
        high=float(exact.max()),
        mean=float(exact.mean()),
        rms=float(np.sqrt(np.square(exact).mean())),
    )


def write_learned(path: Path, ranges: Sequence[LearnedRange]) -> None:
    path.write_text(json.dumps([asdict(learned) for learned in ranges], sort_keys=True))


def read_learned(path: Path) -> list[LearnedRange]:
    rows = json.loads(path.read_text())
    return [LearnedRange(**{**row, "holds": Fingerprint(**row["holds"])}) for row in rows]


def placed(
    learned: Sequence[LearnedRange], show: Callable[[Take], None]
) -> tuple[dict[str, tuple[float, float]], tuple[str, ...]]:
    """The learned range of each tensor that is found, and the names of learned ranges for which there is no tensor.

    Args:
        learned: from training.
        show: hands the exported model's tensors for the first calibration sample to what it is given.
    """
    ranges: dict[str, tuple[float, float]] = {}
    found: set[str] = set()

    def take(name: str, values: Array) -> None:
        if values.size and np.isfinite(values).all():
            print_ = fingerprint(values)
            same = [one for one in learned if one.holds.matches(print_)]
            found.update(one.name for one in same)
            if same:  # several: they hold the same values, so that any of their ranges serves
                ranges[name] = (same[0].low, same[0].high)

    show(take)
    return ranges, tuple(one.name for one in learned if one.name not in found)


def beginnings(
    held: Mapping[str, Fingerprint], ranges: Mapping[str, tuple[float, float]], show: Callable[[Take], None]
) -> dict[str, tuple[float, float]]:
    """The other way: for each tensor of the source, by what it holds, the range of an export's tensor that is it."""
    found: dict[str, tuple[float, float]] = {}

    def take(name: str, values: Array) -> None:
        if name in ranges and values.size and np.isfinite(values).all():
            print_ = fingerprint(values)
            for own, holds in held.items():
                if own not in found and holds.matches(print_):
                    found[own] = ranges[name]

    show(take)
    return found
