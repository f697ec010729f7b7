"""A function of the user's that yields samples: {input name: array}, or ({input name: array}, truth)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, UsageError
from targets.records import TensorSpec

from .sample import Raw
from .spec import DataSpec
from .user_function import call, load_function, user_error


class FunctionSource:
    """The function is called again for every pass, so memory stays flat; it must yield the same samples each time.

    Arrays come without the batch axis, or with a batch axis of 1 in front.
    """

    def __init__(self, spec: DataSpec, signature: Sequence[TensorSpec], base: Path) -> None:
        if spec.truth is not None:
            raise UsageError(
                f"{spec.path}: a function brings its own truth", hint="yield (inputs, truth), drop `truth`"
            )
        self._reference = spec.path
        self._function = load_function(spec.path, base)
        self._count = sum(1 for _ in self._items())
        if not self._count:
            raise InputError(f"{spec.path} yielded no samples", hint="yield {input name: array} at least once")

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> Iterator[Raw]:
        """Yield the samples at these ascending places; the ones between are made and dropped."""
        wanted = iter(indices)
        index = next(wanted, None)
        for number, item in enumerate(self._items()):
            if number == index:
                yield self._raw(number, item)
                index = next(wanted, None)
            if index is None:
                return
        raise InputError(
            f"{self._reference} yielded fewer samples than the {self._count} of its first pass",
            hint="it must yield the same samples every time it is called: seed its randomness",
        )

    def _items(self) -> Iterator[Any]:
        items = call(self._reference, self._function)
        if not isinstance(items, Iterable) or isinstance(items, Mapping | str | bytes):
            raise InputError(
                f"{self._reference} returned {type(items).__name__}",
                hint="yield one {input name: array} per sample",
            )
        running = iter(items)
        while True:
            try:
                item = next(running)
            except StopIteration:
                return
            except (Exception, SystemExit) as error:
                raise user_error(self._reference, error) from error
            yield item

    def _raw(self, number: int, item: Any) -> Raw:
        name = f"{self._reference}[{number}]"
        inputs, truth = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(inputs, Mapping) or not all(isinstance(key, str) for key in inputs):
            raise InputError(
                f"{name}: got {type(item).__name__}",
                hint="yield {input name: array}, or the pair ({input name: array}, truth)",
            )
        arrays = {key: _array(name, key, value) for key, value in inputs.items()}
        return Raw(id=name, inputs=arrays, truth=None if truth is None else _array(name, "truth", truth))


def _array(name: str, key: str, value: object) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name}: {key!r} is no array: {error}", hint="yield plain numeric arrays") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: {key!r} has the type {array.dtype}", hint="yield plain numeric arrays")
    return array
