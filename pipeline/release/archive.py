"""The canonical tar of a bundle: there is exactly one way to write given files, and nothing else is read.

The reader does not interpret a tar; it makes the header that a file must have and compares. So links, devices, other
names, other owners, extensions of tar, bytes between files and behind them are all refused by one rule, and a changed
byte anywhere is either in a header (refused here) or in a file (refused by its hash).
"""

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from targets.errors import BundleRefused

BLOCK_BYTES = tarfile.BLOCKSIZE
_END = bytes(2 * BLOCK_BYTES)  # two blocks of zeros end a tar
_CHUNK_BYTES = 1 << 20
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: "a folder",
}


def header(name: str, size_bytes: int) -> bytes:
    """The one header that a file may have: owner 0, time 0, readable by all."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size_bytes, 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT)


def padding_bytes(size_bytes: int) -> int:
    return -size_bytes % BLOCK_BYTES


def total_bytes(sizes: Mapping[str, int]) -> int:
    """Size of the archive of files with these sizes."""
    return sum(BLOCK_BYTES + size + padding_bytes(size) for size in sizes.values()) + len(_END)


def write_archive(out: BinaryIO, files: Mapping[str, bytes | Path]) -> None:
    """Write the files in the order given."""
    for name, content in files.items():
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        out.write(header(name, size))
        if isinstance(content, bytes):
            out.write(content)
        else:
            with content.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    out.write(chunk)
        out.write(bytes(padding_bytes(size)))
    out.write(_END)


def next_name(file: BinaryIO) -> tuple[str, int]:
    """Name and size of the file that begins here, without moving on; ("", 0) at the end of the archive.

    Raises:
        BundleRefused: what stands here is no header that `header` makes.
    """
    place = file.tell()
    block = file.read(BLOCK_BYTES)
    file.seek(place)
    if not any(block):
        return "", 0
    try:
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise BundleRefused(f"damaged at byte {place}: {error}", hint=_DAMAGED) from None
    if entry.type in _KINDS:
        raise BundleRefused(f"{entry.name!r} in it is {_KINDS[entry.type]}; a bundle holds files only", hint=_FOREIGN)
    if entry.name.startswith("/") or ".." in entry.name.split("/"):
        raise BundleRefused(f"{entry.name!r} in it points out of the bundle", hint=_FOREIGN)
    return entry.name, entry.size


def read_file(file: BinaryIO, name: str, size_bytes: int) -> Iterator[bytes]:
    """The content of the file that must begin here, in pieces; its end is checked when all have been taken.

    Raises:
        BundleRefused: another file begins here, or this one is cut short.
    """
    expect(file, name, size_bytes)
    left = size_bytes
    while left:
        chunk = file.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise BundleRefused(f"it ends in the middle of {name}", hint=_DAMAGED)
        left -= len(chunk)
        yield chunk
    pad = padding_bytes(size_bytes)
    if file.read(pad) != bytes(pad):
        raise BundleRefused(f"damaged behind {name}", hint=_DAMAGED)


def expect(file: BinaryIO, name: str, size_bytes: int) -> None:
    """Go past the header of this very file, or raise BundleRefused."""
    found, _ = next_name(file)
    place = file.tell()
    if file.read(BLOCK_BYTES) == header(name, size_bytes):
        return
    said = "it ends" if not found else f"{found!r} stands" if found != name else "another form of it stands"
    raise BundleRefused(f"{said} where {name!r} of {size_bytes} bytes should be, at byte {place}", hint=_DAMAGED)


def expect_end(file: BinaryIO) -> None:
    """Nothing but the two blocks of zeros may follow; else BundleRefused."""
    if file.read(len(_END) + 1) != _END:
        raise BundleRefused("more follows after its last file, or its end is missing", hint=_DAMAGED)


_DAMAGED = "fetch it again from where it was made, or make it again with `deploy run`"
_FOREIGN = "this is not the work of `deploy run`: do not use it"
