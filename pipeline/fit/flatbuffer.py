"""FlatBuffers' tables, read without a schema, bounds checked. Reference: https://flatbuffers.dev/internals/"""

import struct

from pipeline.fit.records import Malformed

_MOST_TEXT = 4096


class Table:
    """A table: fields by number.

    Raises:
        Malformed, struct.error, IndexError: damaged bytes.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        (back,) = _read("<i", data, at)
        self._fields_at = at - back
        (self._size,) = _read("<H", data, self._fields_at)

    def _place(self, number: int) -> int:
        slot = 4 + 2 * number
        if slot + 2 > self._size:
            return 0
        (offset,) = _read("<H", self._data, self._fields_at + slot)
        return self._at + int(offset) if offset else 0

    def number(self, number: int, layout: str, default: int) -> int:
        place = self._place(number)
        return int(_read(layout, self._data, place)[0]) if place else default

    def table(self, number: int) -> "Table | None":
        place = self._place(number)
        return Table(self._data, _target(self._data, place)) if place else None

    def item(self, number: int, index: int) -> "Table | None":
        start, count = self._vector(number)
        return Table(self._data, _target(self._data, start + 4 * index)) if index < count else None

    def tables(self, number: int, most: int) -> "list[Table]":
        start, count = self._vector(number)
        if count > most:
            raise Malformed(f"a list of {count}")
        return [Table(self._data, _target(self._data, start + 4 * place)) for place in range(count)]

    def numbers(self, number: int, most: int) -> tuple[int, ...]:
        """A vector of 32-bit integers."""
        start, count = self._vector(number)
        if count > most:
            raise Malformed(f"a list of {count}")
        return _read(f"<{count}i", self._data, start) if count else ()

    def count(self, number: int) -> int:
        return self._vector(number)[1]

    def bytes(self, number: int) -> bytes:
        start, count = self._vector(number)
        if count > _MOST_TEXT:
            raise Malformed(f"a text of {count} bytes")
        return self._data[start : start + count]

    def text(self, number: int) -> str:
        return self.bytes(number).decode("utf-8", "replace").rstrip("\0")

    def _vector(self, number: int) -> tuple[int, int]:
        place = self._place(number)
        if not place:
            return 0, 0
        start = _target(self._data, place)
        (count,) = _read("<I", self._data, start)
        return start + 4, int(count)


def root(data: bytes) -> Table:
    """The outermost table."""
    return Table(data, _target(data, 0))


def _read(layout: str, data: bytes, at: int) -> tuple[int, ...]:
    if at < 0:  # struct would count from the end
        raise Malformed("an offset before the file's start")
    return struct.unpack_from(layout, data, at)


def _target(data: bytes, at: int) -> int:
    """Where the offset at `at` leads; a table or vector lies behind it."""
    (offset,) = _read("<I", data, at)
    return at + int(offset)
