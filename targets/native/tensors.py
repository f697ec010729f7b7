"""Tensor files, which the C programs read and write: the format is described in src/bench.h."""

import struct
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

MAGIC = b"EDTENS1\n"
MAX_RANK = 8
MAX_TENSORS = 256
MAX_NAMES = 4
_DTYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64"),
)

Array = np.ndarray[Any, Any]


def encode(arrays: Mapping[str, Array]) -> bytes:
    """The file with these arrays by name; raises ValueError for one that has no place in it."""
    if len(arrays) > MAX_TENSORS:
        raise ValueError(f"{len(arrays)} arrays are more than {MAX_TENSORS}")
    parts = [MAGIC, _u32(len(arrays))]
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise ValueError(f"array {name} is of type {array.dtype}")
        if array.ndim > MAX_RANK or "\0" in name:
            raise ValueError(
                f"array {name!r} has {array.ndim} dimensions" if array.ndim > MAX_RANK else "NUL in a name"
            )
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        shape = struct.pack(f"<{array.ndim}Q", *array.shape)
        parts += [_u32(1), _text(name), _text(array.dtype.name), _u32(array.ndim), shape]
        parts += [struct.pack("<Q", little.nbytes), little.tobytes()]
    return b"".join(parts)


def _u32(number: int) -> bytes:
    return struct.pack("<I", number)


def _text(text: str) -> bytes:
    data = text.encode()
    return _u32(len(data)) + data


def decode(data: bytes) -> list[tuple[list[str], Array]]:
    """The names and the values of each tensor; raises ValueError for what is not exactly such a file."""
    reader = _Reader(data)
    if reader.take(len(MAGIC)) != MAGIC:
        raise ValueError("it is no tensor file")
    tensors = [_tensor(reader) for _ in range(reader.number(MAX_TENSORS))]
    if reader.left:
        raise ValueError("there is more in it than its tensors")
    return tensors


def _tensor(reader: "_Reader") -> tuple[list[str], Array]:
    names = [reader.text() for _ in range(reader.number(MAX_NAMES))]
    dtype = reader.text()
    if not names or dtype not in _DTYPES:
        raise ValueError(f"a tensor has no name, or an unknown type: {dtype[:20]!r}")
    rank = reader.number(MAX_RANK)
    shape = struct.unpack(f"<{rank}Q", reader.take(8 * rank))
    (size,) = struct.unpack("<Q", reader.take(8))
    kind = np.dtype(dtype).newbyteorder("<")
    if size != prod(shape) * kind.itemsize:
        raise ValueError("a tensor's size is not that of its shape")
    return names, np.frombuffer(reader.take(size), kind).reshape(shape)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise ValueError("it is cut off")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, most: int) -> int:
        number: int = struct.unpack("<I", self.take(4))[0]
        if number > most:
            raise ValueError(f"a count of {number} is more than {most}")
        return number

    def text(self) -> str:
        (size,) = struct.unpack("<I", self.take(4))
        return self.take(size).decode("utf-8", "replace")
