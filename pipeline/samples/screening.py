"""What is noticed about a whole set: constant samples, duplicates, a range that looks unscaled."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

# A finding names a few samples; a thousand lines would hide the next finding.
_NAMED = 5
# The largest values of deeper pixels. Between 255 and these, too much else is counted.
_TWELVE_BITS, _SIXTEEN_BITS = 4000, 65535


class Screening:
    """Fed every sample of one pass; memory: one digest and one id per sample."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._ids: dict[str, str] = {}  # digest -> id of its first sample
        self._count = 0
        self._constant: list[str] = []
        self._duplicates: list[str] = []
        self._notes: dict[str, None] = {}
        self._range: dict[str, tuple[float, float]] = {}

    def add(self, sample: str, inputs: Mapping[str, NDArray[Any]], digest: str, notes: Sequence[str]) -> None:
        """Take in one sample as the model gets it."""
        self._count += 1
        self._notes.update(dict.fromkeys(notes))
        first = self._ids.setdefault(digest, sample)
        if first != sample:
            self._duplicates.append(f"{sample} = {first}")
        # One value is not a constant image; and a constant mask beside a real input is nothing to report.
        spread = [array for array in inputs.values() if array.size > 1]
        if spread and all(array.min() == array.max() for array in spread):
            self._constant.append(sample)
        for name, array in inputs.items():
            if array.size and np.issubdtype(array.dtype, np.floating):
                low, high = self._range.get(name, (np.inf, -np.inf))
                self._range[name] = (min(low, float(array.min())), max(high, float(array.max())))

    def findings(self) -> tuple[str, ...]:
        """Return what was noticed; InputError when every sample is constant."""
        if self._count and len(self._constant) == self._count:
            raise InputError(
                f"{self._path}: every sample is constant, such as {self._constant[0]}",
                hint="look at one sample and at the steps of `preprocess`: nothing can be calibrated on this",
            )
        found = list(self._notes)
        if self._constant:
            found.append(f"{len(self._constant)} constant samples: {_named(self._constant)}")
        if self._duplicates:
            found.append(f"{len(self._duplicates)} duplicate samples: {_named(self._duplicates)}")
        for name, (low, high) in self._range.items():
            # Pixels run over 0–255; hardly any net takes them as floats without a scale.
            if low >= 0 and 128 <= high <= 255:
                found.append(f"input {name!r}: values reach {high:g}: is `scale: 1/255` missing?")
            elif low >= 0 and _TWELVE_BITS < high <= _SIXTEEN_BITS:
                found.append(f"input {name!r}: values reach {high:g}: is `scale: 1/65535` missing?")
            elif low >= 0 and 0 < high <= 1 / 255:
                found.append(f"input {name!r}: values reach only {high:.2g}: are they scaled twice?")
        return tuple(found)


def _named(samples: Sequence[str]) -> str:
    more = len(samples) - _NAMED
    return ", ".join(samples[:_NAMED]) + (f" and {more} more" if more > 0 else "")
