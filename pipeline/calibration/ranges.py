"""Minimum and maximum per tensor: the same under any order of samples, in memory that does not grow with them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.errors import InputError

Array = np.ndarray[Any, Any]


class Observer(Protocol):
    """A float model that shows its tensors. `observe` runs one sample and yields (tensor name, values)."""

    def __init__(self, path: Path) -> None: ...

    def observe(self, inputs: Mapping[str, Array]) -> Iterable[tuple[str, Array]]: ...


class MinMax:
    """Running range of each tensor."""

    def __init__(self) -> None:
        self._ranges: dict[str, tuple[float, float]] = {}

    def add(self, sample: str, tensor: str, values: Array) -> None:
        """Take in one tensor of one sample.

        Raises:
            InputError: the float model itself computes NaN or infinity for this sample.
        """
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise InputError(
                f"{sample}: the float model computes NaN or infinity in tensor {tensor!r} for this calibration sample",
                hint="take the sample out, or mend the model: no range can be derived from it",
            )
        known = self._ranges.get(tensor)
        self._ranges[tensor] = (min(low, known[0]), max(high, known[1])) if known else (low, high)

    def result(self) -> dict[str, tuple[float, float]]:
        """The range of every tensor seen, by name. A constant tensor has equal ends."""
        return dict(sorted(self._ranges.items()))
