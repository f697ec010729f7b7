"""Protocol buffers' wire format, read without schemas: fields in order, bounds checked.

The messages we read (BundleConfig, an AAB's manifest, ONNX's ModelProto) are needed for a handful of fields each.
Generated code would need the schemas' sources of three projects; `onnx.load` would copy a model into memory.
Reference: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator

from pipeline.fit.records import Malformed

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_MOST_FIELDS = 1_000_000  # the largest graphs have 100,000 nodes and weights
_LONGEST_VARINT = 10  # bytes that 64 bits need at 7 a byte

Value = int | memoryview


def fields(data: bytes | memoryview) -> Iterator[tuple[int, Value]]:
    """Field number and value of each field: an int for varints and fixed sizes, the bytes for the rest.

    Raises:
        Malformed: no protocol buffer, or a cut off one.
    """
    view, at = memoryview(data), 0
    for _ in range(_MOST_FIELDS):
        if at >= len(view):
            return
        key, at = _varint(view, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise Malformed("a field of number 0")
        if kind == _VARINT:
            value, at = _varint(view, at)
            yield number, value
        elif kind in (_LEN, _I64, _I32):
            count, at = _varint(view, at) if kind == _LEN else (8 if kind == _I64 else 4, at)
            if count > len(view) - at:
                raise Malformed(f"field {number} is cut off")
            content = view[at : at + count]
            at += count
            yield number, content if kind == _LEN else int.from_bytes(content, "little")
        else:
            raise Malformed(f"field {number} is of wire type {kind}")
    raise Malformed(f"more than {_MOST_FIELDS} parts in one message")


def messages(data: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """The sub-messages (or byte strings) of one field."""
    for found, value in fields(data):
        if found == number:
            if isinstance(value, int):
                raise Malformed(f"field {number} is a number")
            yield value


def text(value: Value) -> str:
    """A string field's text."""
    if isinstance(value, int):
        raise Malformed("a number where text should be")
    return bytes(value).decode("utf-8", "replace")


def number(value: Value) -> int:
    """A numeric field's value."""
    if not isinstance(value, int):
        raise Malformed("bytes where a number should be")
    return value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(view[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & (2**64 - 1), at + place + 1
    raise Malformed("a number is cut off")
