"""Model outputs of a set of samples in one `.npz` file, written and read one sample at a time."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

Array = np.ndarray[Any, Any]
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same outputs give the same bytes


class OutputsWriter:
    """Use as a context manager; arrays are named GROUP/NUMBER/TENSOR."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)

    def __enter__(self) -> "OutputsWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()

    def add(self, group: str, number: int, arrays: Mapping[str, Array]) -> None:
        """Write the outputs of sample `number`."""
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{group}/{number}/{name}.npy", _EPOCH)
            with self._zip.open(entry, "w", force_zip64=True) as file:
                _write(file, array)


class OutputsReader:
    """Reads one sample's outputs at a time."""

    def __init__(self, path: Path) -> None:
        self._npz = np.load(path, allow_pickle=False)

    def read(self, group: str, number: int) -> dict[str, Array]:
        """The outputs of sample `number`, by tensor name."""
        prefix = f"{group}/{number}/"
        return {key.removeprefix(prefix): self._npz[key] for key in self._npz.files if key.startswith(prefix)}


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write plain named arrays as a deterministic `.npz`, as the agent on the device reads it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(arrays.items()):
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as file:
                _write(file, array)


def _write(file: IO[bytes], array: Array) -> None:
    # Not `ascontiguousarray`: it makes a number a vector.
    np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
