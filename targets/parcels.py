"""How a file goes over the wire: as it is, compressed when that pays, or as the difference to a file that is there.

What is made once for a file (and a base) is kept in the host's state folder, so that a hundred devices cost one
compression. bsdiff needs 17 bytes of memory for each of its base: it works on windows of both files, which for two
releases of one network hold the same layers.
"""

import hashlib
import os
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

import bsdiff4

from targets.agent.edge.delta import DEFLATED, HEADER, MAX_FRAME_BYTES, PATCH, PLAIN
from targets.errors import InputError
from targets.transport import CHUNK_BYTES

WINDOW_BYTES = 2 << 20  # of a file, at a time: 40 MB for bsdiff
AROUND_BYTES = 256 << 10  # of the base on each side of it, for layers that have moved
_PIECE_BYTES = 256 << 10  # compressed at a time: what an interruption may cost
_SAMPLE_BYTES = 64 << 10
_PAYS = 0.8  # a fifth fewer bytes are worth the time of compressing, on any link that is slower than loopback
# zlib takes 25 MB a second: of a large file of float weights, a third less on the wire is sooner sent than saved.
_LARGE_BYTES, _PAYS_LARGE = 256 << 20, 0.5
_LEVEL = 6  # once for a fleet
_LEAST_BYTES = 16 << 10  # below that, a round trip costs more than the bytes
_KEPT_S = 7 * 24 * 3600
_ALIKE = 2.0  # files that differ more in size are not of one network

_making: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """One file on its way: the device keeps `offset` bytes of it and gets `wire_bytes` for the rest."""

    digest: str
    size_bytes: int
    offset: int
    wire_bytes: int
    framed: bool  # else the bytes of the file as they are
    base: str  # "" when it is no difference
    path: Path  # of the file as it is, or of its frames
    start: int  # where in there to begin

    def chunks(self) -> Iterator[bytes]:
        """What is sent; raises InputError when the file has changed meanwhile."""
        left = self.wire_bytes
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            while left:
                chunk = file.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise InputError(f"{self.path} has changed while it was sent")
                left -= len(chunk)
                yield chunk


def make_parcel(
    path: Path, digest: str, held: tuple[int, str] | None, bases: Mapping[str, Path], kinds: str, cache: Path
) -> Parcel:
    """The cheapest way for a file of which the device holds so many bytes, with their SHA-256, and these bases."""
    size = path.stat().st_size
    offset = held[0] if held and held[0] <= size and _prefix_sha256(path, held[0]) == held[1] else 0
    frames, base = _best_frames(path, digest, size, bases, kinds, cache)
    if frames is None:
        wire_bytes, start = size - offset, offset
    else:
        start, offset = _boundary(frames, offset)
        wire_bytes = frames.stat().st_size - start
    return Parcel(
        digest=digest,
        size_bytes=size,
        offset=offset,
        wire_bytes=wire_bytes,
        framed=frames is not None,
        base=base,
        path=frames or path,
        start=start,
    )


def _best_frames(
    path: Path, digest: str, size: int, bases: Mapping[str, Path], kinds: str, cache: Path
) -> tuple[Path | None, str]:
    if size < _LEAST_BYTES:
        return None, ""
    if PATCH.decode() in kinds:
        sizes = {base: file.stat().st_size for base, file in bases.items() if file.is_file()}
        alike = [base for base, found in sizes.items() if size / _ALIKE <= found <= size * _ALIKE]
        if alike:
            base = min(alike, key=lambda base: abs(sizes[base] - size))
            found = _kept(cache / f"{digest}-{base}.frames", lambda to: _write_patches(path, bases[base], to))
            if found:
                return found, base
    if DEFLATED.decode() in kinds:
        return _kept(cache / f"{digest}.frames", lambda to: _write_deflated(path, size, to)), ""
    return None, ""


def _kept(path: Path, make: Callable[[BinaryIO], bool]) -> Path | None:
    """The file of frames, made now if need be; None when it does not pay, which is kept as an empty file."""
    with _making[path]:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _sweep(path.parent)
            new = path.with_name(f"{path.name}.{token_hex(4)}")
            try:
                with new.open("wb") as file:
                    if not make(file):
                        file.seek(0)
                        file.truncate()
                new.replace(path)
            finally:
                new.unlink(missing_ok=True)
        else:
            os.utime(path)
    return path if path.stat().st_size else None


def _write_deflated(path: Path, size: int, to: BinaryIO) -> bool:
    """Whether a sample says that it pays; then the whole file is compressed."""
    with path.open("rb") as file:
        packed = sampled = 0
        for at in (0, size // 2, size - _SAMPLE_BYTES):
            file.seek(max(0, at))
            sample = file.read(_SAMPLE_BYTES)
            packed, sampled = packed + len(zlib.compress(sample, 1)), sampled + len(sample)
        if packed > (_PAYS_LARGE if size > _LARGE_BYTES else _PAYS) * sampled:
            return False
        file.seek(0)
        while piece := file.read(_PIECE_BYTES):
            _write_smallest(to, piece, {})
    return to.tell() <= _PAYS * size


def _write_patches(path: Path, base: Path, to: BinaryIO) -> bool:
    """Whether the difference pays, as judged by the middle of the file before the rest costs time."""
    size = path.stat().st_size
    starts = range(0, size, WINDOW_BYTES)
    with path.open("rb") as file, base.open("rb") as old:

        def window(start: int) -> tuple[bytes, bytes, int]:
            at = max(0, start - AROUND_BYTES)
            file.seek(start)
            old.seek(at)
            return file.read(WINDOW_BYTES), old.read(WINDOW_BYTES + 2 * AROUND_BYTES), at

        middle, known, _ = window(starts[len(starts) // 2])
        if len(starts) > 1 and len(bsdiff4.diff(known, middle)) > _PAYS * len(middle):
            return False
        for start in starts:
            new, known, at = window(start)
            _write_smallest(to, new, {(at, len(known)): bsdiff4.diff(known, new)} if known else {})
    return to.tell() <= _PAYS * size


def _write_smallest(to: BinaryIO, content: bytes, patches: Mapping[tuple[int, int], bytes]) -> None:
    size = len(content)
    frames: list[tuple[bytes, bytes]] = [
        (_header(PATCH, len(patch), size, *at), patch) for at, patch in patches.items()
    ]
    if not patches or len(frames[0][1]) > size // 2:
        packed = zlib.compress(content, _LEVEL)
        frames += [(_header(DEFLATED, len(packed), size), packed), (_header(PLAIN, size, size), content)]
    fitting = [frame for frame in frames if len(frame[1]) <= MAX_FRAME_BYTES]
    for part in min(fitting, key=lambda frame: len(frame[1])):
        to.write(part)


def _header(kind: bytes, size: int, stands_for: int, at: int = 0, length: int = 0) -> bytes:
    return HEADER.pack(kind, size, stands_for, at, length)


def _boundary(frames: Path, offset: int) -> tuple[int, int]:
    """The last frame that does not begin behind the offset: where it is, and what it begins with."""
    at = decoded = 0
    with frames.open("rb") as file:
        while head := file.read(HEADER.size):
            _, size, stands_for, _, _ = HEADER.unpack(head)
            if decoded + stands_for > offset:
                break
            at, decoded = file.seek(size, os.SEEK_CUR), decoded + stands_for
    return at, decoded


def _prefix_sha256(path: Path, size: int) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (chunk := file.read(min(1 << 20, size))):
            hashed.update(chunk)
            size -= len(chunk)
    return hashed.hexdigest()


def _sweep(cache: Path) -> None:
    for path in cache.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _KEPT_S:
                path.unlink()
