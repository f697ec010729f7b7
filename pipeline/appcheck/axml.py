"""Android's binary XML, as aapt writes AndroidManifest.xml into an APK: the elements and their attributes.

A string pool, a map from the pool to framework attribute numbers, then a flat list of chunks. Attributes are known by
their number where they have one, for shrinkers empty their names. PyPI's readers open the APK a second time by
themselves, or depend on lxml and have ended; none reads a manifest alone. Reference: ResourceTypes.h of androidfw.
"""

import struct
from collections.abc import Iterator, Mapping

from pipeline.fit.records import Malformed

Element = tuple[str, Mapping[str, str | int]]

_XML, _STRING_POOL, _RESOURCE_MAP, _START_ELEMENT = 0x0003, 0x0001, 0x0180, 0x0102
_UTF8 = 1 << 8
_TYPE_STRING, _TYPE_FIRST_INT, _TYPE_BOOLEAN, _TYPE_LAST_INT = 0x03, 0x10, 0x12, 0x1F
_NOTHING = 0xFFFFFFFF
# android.R.attr, frozen for ever by the framework.
_ATTRIBUTES = {
    0x01010003: "name",
    0x0101020C: "minSdkVersion",
    0x01010270: "targetSdkVersion",
    0x010104EA: "extractNativeLibs",
}
_ATTRIBUTE_BYTES = 20


def elements(data: bytes) -> Iterator[Element]:
    """Each start tag with its attributes, in order.

    Raises:
        Malformed: not such a file, or cut off.
    """
    try:
        yield from _elements(data)
    except struct.error as error:
        raise Malformed(f"its manifest is cut off ({error})") from error


def _elements(data: bytes) -> Iterator[Element]:
    kind, header, size = struct.unpack_from("<HHI", data, 0)
    if kind != _XML or size > len(data):
        raise Malformed("its manifest is no binary XML, or cut off")
    strings: list[str] = []
    numbers: tuple[int, ...] = ()
    at = header
    while at + 8 <= size:
        kind, header, length = struct.unpack_from("<HHI", data, at)
        if length < 8 or length > size - at:
            raise Malformed(f"a chunk of {length} bytes in its manifest")
        chunk = data[at : at + length]
        if kind == _STRING_POOL:
            strings = _strings(chunk)
        elif kind == _RESOURCE_MAP:
            numbers = struct.unpack_from(f"<{(length - 8) // 4}I", chunk, 8)
        elif kind == _START_ELEMENT:
            yield _element(chunk, strings, numbers)
        at += length


def _element(chunk: bytes, strings: list[str], numbers: tuple[int, ...]) -> Element:
    name, start, size, count = struct.unpack_from("<I HHH", chunk, 20)
    if count and size < _ATTRIBUTE_BYTES:
        raise Malformed(f"attributes of {size} bytes in its manifest")
    found: dict[str, str | int] = {}
    for place in range(count):
        _, key, raw, _, _, kind, value = struct.unpack_from("<IIIHBBI", chunk, 16 + start + place * size)
        known = _ATTRIBUTES.get(numbers[key]) if key < len(numbers) else None
        if kind == _TYPE_STRING:
            found[known or _string(strings, key)] = _string(strings, raw if raw != _NOTHING else value)
        elif _TYPE_FIRST_INT <= kind <= _TYPE_LAST_INT:
            found[known or _string(strings, key)] = int(bool(value)) if kind == _TYPE_BOOLEAN else value
    return _string(strings, name), found


def _strings(chunk: bytes) -> list[str]:
    count, _, flags, start = struct.unpack_from("<IIII", chunk, 8)
    if count > len(chunk) // 4:
        raise Malformed(f"{count} strings in {len(chunk)} bytes")
    offsets = struct.unpack_from(f"<{count}I", chunk, 28)
    # Offsets may all name one long string: together no more than the pool itself is ever read.
    spare = len(chunk)
    found = []
    for offset in offsets:
        text, used = (_utf8 if flags & _UTF8 else _utf16)(chunk, start + offset)
        spare -= used
        if spare < 0:
            raise Malformed("strings that overlap")
        found.append(text)
    return found


def _utf8(chunk: bytes, at: int) -> tuple[str, int]:
    _, at = _length(chunk, at, "B", 0x80, 8)  # in characters
    count, at = _length(chunk, at, "B", 0x80, 8)
    return chunk[at : at + count].decode("utf-8", "replace"), count


def _utf16(chunk: bytes, at: int) -> tuple[str, int]:
    count, at = _length(chunk, at, "H", 0x8000, 16)
    return chunk[at : at + 2 * count].decode("utf-16-le", "replace"), 2 * count


def _length(chunk: bytes, at: int, unit: str, more: int, bits: int) -> tuple[int, int]:
    """A length of one unit, or of two when the first has its highest bit set."""
    width = bits // 8
    (first,) = struct.unpack_from(f"<{unit}", chunk, at)
    if not first & more:
        return int(first), at + width
    (second,) = struct.unpack_from(f"<{unit}", chunk, at + width)
    return int((first & ~more) << bits | second), at + 2 * width


def _string(strings: list[str], place: int) -> str:
    return strings[place] if place < len(strings) else ""
