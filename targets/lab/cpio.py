"""Archives in the format `newc`, which a Linux kernel unpacks into its first file system.

The kernel unpacks several that are put one behind the other; a later file replaces an earlier one of the same name.
See Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_ALIGNMENT_BYTES = 4  # of names and contents; the kernel skips zeros between archives


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file, or with a mode that says so another thing; folders must come before what they hold."""

    name: str  # from the root, without a leading slash
    mode: int  # type and permissions, as in `os.stat_result.st_mode`
    content: bytes = b""


def folder(name: str, permissions: int = 0o755) -> Entry:
    return Entry(name=name, mode=stat.S_IFDIR | permissions)


def file(name: str, content: bytes, permissions: int = 0o644) -> Entry:
    return Entry(name=name, mode=stat.S_IFREG | permissions, content=content)


def entries_of(place: Path, name: str) -> Iterable[Entry]:
    """A file, or a folder with all in it, under another name; it will belong to root."""
    if place.is_dir():
        yield folder(name, stat.S_IMODE(place.stat().st_mode))
        for path in sorted(place.iterdir()):
            yield from entries_of(path, f"{name}/{path.name}")
    else:
        yield file(name, place.read_bytes(), stat.S_IMODE(place.stat().st_mode))


def archive(entries: Iterable[Entry]) -> bytes:
    """All entries as one archive, with owner root and without a time."""
    numbered = [*enumerate(entries, start=1), (0, Entry(name="TRAILER!!!", mode=0))]
    return b"".join(_packed(number, entry) for number, entry in numbered)


def _packed(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    # inode, mode, uid, gid, links, time, size, device (2), device that it is (2), length of the name, checksum
    fields = [number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(name), 0]
    header = b"070701" + "".join(f"{field:08x}" for field in fields).encode()
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT_BYTES)
