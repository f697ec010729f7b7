"""Reading `.npz` and `.npy` files, memory-mapped where the file allows."""

import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

from .files import check_file

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # PKZIP APPNOTE 4.3.7: signature … name length, extra length


def open_arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    """Open every array of the file by name ("" for the one of an `.npy`); InputError names the file.

    `np.save` and `np.savez` files are mapped, so memory does not grow with the set; the arrays of
    `np.savez_compressed` cannot be mapped and are read whole.
    """
    check_file(path, "array file")
    try:
        if path.suffix.lower() == ".npy":
            return {"": _first_axis(np.load(path, mmap_mode="r", allow_pickle=False), path, "")}
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            arrays = {entry.filename.removesuffix(".npy"): _open_entry(path, archive, entry) for entry in entries}
    except InputError:
        raise
    except Exception as error:
        # zipfile and numpy raise anything on damaged bytes: BadZipFile, ValueError, EOFError, zlib.error …
        hint = "save plain numeric arrays with np.savez"
        raise InputError(f"{path}: cannot be read as arrays: {error}", hint=hint) from error
    if not arrays:
        raise InputError(f"{path}: holds no array", hint="save one array per model input with np.savez")
    return {name: _first_axis(array, path, name) for name, array in arrays.items()}


def _open_entry(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    if entry.compress_type != zipfile.ZIP_STORED:
        with archive.open(entry) as compressed:
            return _own(np.lib.format.read_array(compressed, allow_pickle=False))
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        start = file.seek(name_bytes + extra_bytes, 1)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(f"{entry.filename} holds Python objects")
        # A map reads on past the end of a lying entry, into the next one.
        if file.tell() - start + math.prod(shape) * dtype.itemsize > entry.file_size:
            raise ValueError(f"{entry.filename} is shorter than its header says")
        if not math.prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def _own(array: Any) -> NDArray[Any]:
    return np.asarray(array)


def _first_axis(array: NDArray[Any], path: Path, name: str) -> NDArray[Any]:
    where = f"{path}: array {name!r}" if name else f"{path}"
    if array.ndim == 0 or len(array) == 0:
        raise InputError(f"{where} holds no samples, its shape is {list(array.shape)}", hint="first axis = samples")
    return array
