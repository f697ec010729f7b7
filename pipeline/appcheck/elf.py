"""A shared library's program headers, dynamic symbols and version names: the few fields that decide here.

Sixteen fields of two structures, bounds checked. pyelftools would need the whole library in memory, and answers hostile
bytes with whatever exception they lead to. Reference: the ELF chapters of the System V ABI, `man 5 elf`.
"""

import struct
from dataclasses import dataclass

from pipeline.fit.records import Malformed

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 5, 6, 10
_MOST_SYMBOLS = 200_000  # onnxruntime exports 300, TensorFlow's largest library 70,000
_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    kind: int
    offset: int
    address: int
    file_bytes: int
    align: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """The head of a library. `machine` is its e_machine."""

    is_64: bool
    machine: int
    segments: tuple[Segment, ...]

    @property
    def load_alignments(self) -> tuple[int, ...]:
        return tuple(segment.align for segment in self.segments if segment.kind == _PT_LOAD)

    def offset_of(self, address: int) -> int:
        """Where in the file the byte at this address is. Raises Malformed."""
        for segment in self.segments:
            if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.file_bytes:
                return segment.offset + address - segment.address
        raise Malformed(f"address {address:#x} is in no segment")


def headers_end(head: bytes) -> int:
    """How much of the file must be read for `parse`: up to the end of the program headers. Raises Malformed."""
    _, _, offset, size, count = _start(head)
    return offset + size * count


def parse(data: bytes) -> Elf:
    """The program headers. Raises Malformed for what is no little-endian ELF file."""
    is_64, machine, offset, size, count = _start(data)
    layout = struct.Struct("<IIQQQQQQ" if is_64 else "<IIIIIIII")
    if size != layout.size or offset + size * count > len(data):
        raise Malformed("its program headers are cut off or of an unknown size")
    segments = []
    for place in range(count):
        found = layout.unpack_from(data, offset + place * size)
        # The flags moved to the front in the 64-bit layout.
        kind, at, address, file_bytes = (found[0], *found[2:4], found[5]) if is_64 else (*found[:3], found[4])
        segments.append(Segment(kind=kind, offset=at, address=address, file_bytes=file_bytes, align=found[7]))
    return Elf(is_64=is_64, machine=machine, segments=tuple(segments))


def _start(data: bytes) -> tuple[bool, int, int, int, int]:
    if data[:4] != b"\x7fELF" or len(data) < 64 or data[4] not in (1, 2) or data[5] != 1:
        raise Malformed("is no little-endian ELF file")
    is_64 = data[4] == 2
    (machine,) = struct.unpack_from("<H", data, 18)
    (offset,) = struct.unpack_from("<Q" if is_64 else "<I", data, 32 if is_64 else 28)
    size, count = struct.unpack_from("<HH", data, 54 if is_64 else 42)
    return is_64, machine, offset, size, count


def symbol_address(data: bytes, elf: Elf, name: bytes) -> int | None:
    """The address of an exported symbol, or None. Raises Malformed."""
    word = struct.Struct("<QQ" if elf.is_64 else "<II")
    dynamic: dict[int, int] = {}
    for segment in elf.segments:
        if segment.kind == _PT_DYNAMIC:
            section = data[segment.offset : segment.offset + segment.file_bytes]
            for tag, value in word.iter_unpack(section[: len(section) // word.size * word.size]):
                dynamic.setdefault(tag, value)
    if not {_DT_STRTAB, _DT_SYMTAB, _DT_STRSZ} <= dynamic.keys():
        return None
    strings_at = elf.offset_of(dynamic[_DT_STRTAB])
    strings = data[strings_at : strings_at + dynamic[_DT_STRSZ]]
    place = strings.find(b"\0" + name + b"\0") + 1
    if not place:
        return None
    layout = struct.Struct("<IBBHQQ" if elf.is_64 else "<IIIBBH")
    # A symbol table has no length of its own; every linker puts the strings right after it, or it ends with the file.
    start = elf.offset_of(dynamic[_DT_SYMTAB])
    end = min(strings_at if strings_at > start else len(data), start + _MOST_SYMBOLS * layout.size, len(data))
    for found in layout.iter_unpack(data[start : start + max(end - start, 0) // layout.size * layout.size]):
        if found[0] == place:
            return int(found[4] if elf.is_64 else found[1]) or None
    return None


def text_at(data: bytes, offset: int) -> str:
    """The NUL-terminated text there. Raises Malformed."""
    found, end, _ = data[offset : offset + _LONGEST_NAME].partition(b"\0")
    if not end or not found.isascii():
        raise Malformed("no text there")
    return found.decode()
