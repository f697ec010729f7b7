"""`.npz` and `.npy` sources: one array per model input, first axis = samples."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, UsageError
from targets.records import TensorSpec

from .array_file import open_arrays
from .files import resolve
from .sample import Raw
from .spec import ArrayTruth, DataSpec
from .truth import Answer, open_truth


class ArrayFile:
    """One array per input, named as the input; further arrays are left alone (one of them may be the truth)."""

    def __init__(self, spec: DataSpec, signature: Sequence[TensorSpec], base: Path) -> None:
        self._path = path = resolve(spec.path, base)
        names = [tensor.name for tensor in signature]
        arrays = open_arrays(path)
        if "" in arrays:
            if len(names) != 1:
                raise UsageError(
                    f"{path}: an .npy feeds one input, this model has {len(names)}: {', '.join(names)}",
                    hint="save an .npz with one array per input",
                )
            arrays = {names[0]: arrays[""]}
        truth = spec.truth.array if isinstance(spec.truth, ArrayTruth) else None
        others = [name for name in arrays if name != truth]
        if len(names) == 1 and names[0] not in arrays and len(others) == 1:
            # One input and one array that could be it: frameworks make up input names that nobody knows by heart.
            arrays = {**arrays, names[0]: arrays[others[0]]}
        self._inputs = {
            name: _named(arrays, name, path, "the model's inputs are " + ", ".join(names)) for name in names
        }
        used = dict(self._inputs)
        if isinstance(spec.truth, ArrayTruth):
            used[spec.truth.array] = _named(arrays, spec.truth.array, path, "mend `truth: {array: …}`")
        lengths = {name: len(array) for name, array in used.items()}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise InputError(f"{path}: the first axes differ: {listed}", hint="every array needs one row per sample")
        self._count = lengths[names[0]]
        if isinstance(spec.truth, ArrayTruth):
            self._truth: Answer | None = partial(_row, used[spec.truth.array])
        else:
            rows = tuple(Path(str(index)) for index in range(self._count))
            self._truth = open_truth(spec.truth, rows, spec.path, base)

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> Iterator[Raw]:
        """Yield the samples at these places, one row at a time."""
        for index in indices:
            inputs = {name: _row(array, index) for name, array in self._inputs.items()}
            truth = None if self._truth is None else self._truth(index)
            yield Raw(id=f"{self._path.name}[{index}]", inputs=inputs, truth=truth)


def _named(arrays: Mapping[str, NDArray[Any]], name: str, path: Path, hint: str) -> NDArray[Any]:
    if name not in arrays:
        raise InputError(f"{path}: holds no array {name!r}, but {', '.join(arrays)}", hint=hint)
    return arrays[name]


def _row(array: NDArray[Any], index: int) -> NDArray[Any]:
    # A copy, so that nothing downstream keeps the map of a whole file open or writes through it.
    return np.array(array[index])
