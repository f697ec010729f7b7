"""Files on their way in: received, decoded, hashed while they come, and kept for going on when the link is lost.

ROOT/parts/<session>/<digest>.part   being received; moved away when its session ends before the file does
ROOT/incoming/<digest>.part          interrupted; whoever wants to go on moves it into its own session's folder
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from .blobs import Blobs
from .delta import DEFLATED, HEADER, MAX_FRAME_BYTES, PATCH, PLAIN, inflate, kinds, patched
from .files import READABLE, flush, sha256_of
from .wire import HostGone, Json, Link, Refused

TYPE_CHECKING = False  # see `wire`
if TYPE_CHECKING:
    from typing import Any, BinaryIO, Callable

    Write = Callable[[bytes], None]

# A host that is there sends without pause. One that is not looks the same as a slow one, but its own system gives a
# dead link up within 5 s (targets.transports.ssh_link): after twice that and some, nothing will come any more.
SILENCE_S = 12.0
KEPT = 4  # interrupted files; more are those of models that nobody sends any more
KEPT_S = 24 * 3600


def into(file: BinaryIO, hashed: Any) -> Write:
    """Writes to an unbuffered file and its hash; the system may take less at once than it is given."""

    def write(content: bytes) -> None:
        hashed.update(content)
        while content:
            content = content[file.write(content) :]

    return write


class Incoming:
    """The files that one session receives."""

    def __init__(self, blobs: Blobs, link: Link) -> None:
        self.blobs, self.link = blobs, link
        self.folder = blobs.root / "incoming"
        self.left = 0  # bytes of the current request that are still to come

    def have(self, request: Json) -> Json:
        """Which files are there, how much of the others, and what room; with `bases`, which of those are there too."""
        found = self.blobs.have(request)
        held = {}
        for digest in request["blobs"]:
            if digest not in found["present"]:
                path = self.claim(digest)
                if path.is_file() and path.stat().st_size:
                    held[digest] = [path.stat().st_size, sha256_of(path)]
        self.sweep()
        bases = [digest for digest in request.get("bases", ()) if self.blobs.blob(digest).is_file()]
        return {**found, "held": held, "bases": bases, "kinds": kinds()}

    def claim(self, digest: str) -> Path:
        """Have the interrupted file to ourselves, if there is one; where it then is."""
        mine, kept = self.blobs.part(digest), self.folder / (digest + ".part")
        if not mine.exists():
            self.await_silent(kept)
            with contextlib.suppress(FileNotFoundError):
                kept.replace(mine)
        return mine

    def await_silent(self, kept: Path) -> None:
        """Wait for a session that waits in vain for the rest of the file, and will soon leave what it has."""
        seen: dict[Path, int] = {}
        end = time.monotonic() + SILENCE_S + 2
        while not kept.exists() and time.monotonic() < end:
            sizes = {path: path.stat().st_size for path in self.blobs.others(kept.name)}
            if not sizes or any(size != seen.get(path, size) for path, size in sizes.items()):
                return  # nobody has it, or somebody is receiving it right now
            seen = sizes
            time.sleep(0.5)

    def receive(self, request: Json) -> Json:
        """Take a file's frames, which follow the request, and give the file its live name."""
        self.left = request["wire_bytes"]
        try:
            return self.store(request)
        finally:
            while self.left > 0:  # an answer that says no is only read after all was sent
                self.take(self.left)

    def store(self, request: Json) -> Json:
        digest, size, offset = request["sha256"], request["size_bytes"], request["offset"]
        path = self.blobs.part(digest)
        fd = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with open(fd, "r+b", buffering=0) as file:  # noqa: PTH123
            if os.fstat(fd).st_size < offset:
                raise Refused("hash-mismatch", "only %d bytes are held of %s" % (os.fstat(fd).st_size, digest))
            file.truncate(offset)
            hashed = hashlib.sha256()
            for chunk in iter(lambda: file.read(1 << 20), b""):
                hashed.update(chunk)
            try:
                write = into(file, hashed)
                if request["framed"]:
                    self.unpack(write, size - offset, request["base"])
                else:
                    self.pass_on(write, size - offset)
            except HostGone:
                os.fsync(fd)
                raise
            except (OSError, Refused):
                path.unlink()  # gives the space back, or gets damaged contents out of the way
                raise
            if hashed.hexdigest() != digest:
                path.unlink()
                raise Refused("hash-mismatch", "arrived as sha256 %s, was sent as %s" % (hashed.hexdigest(), digest))
            os.fchmod(fd, READABLE)
            os.fsync(fd)  # the bytes first, then the name: both must outlive a power cut
        path.replace(self.blobs.blob(digest))
        flush(self.blobs.blobs)
        return {}

    def pass_on(self, write: Write, size: int) -> None:
        if size > self.left:
            raise Refused("agent", "a file is longer than what was sent")
        while size:
            chunk = self.take(size)
            size -= len(chunk)
            write(chunk)

    def unpack(self, write: Write, missing: int, base: str) -> None:
        """Turn frames into the missing bytes of a file."""
        with contextlib.ExitStack() as opened:
            source = opened.enter_context(self.blobs.blob(base).open("rb")) if base else None
            while self.left:
                kind, size, stands_for, start, length = HEADER.unpack(self.exactly(HEADER.size))
                missing -= stands_for
                if missing < 0 or size > self.left or not stands_for or not size:
                    raise Refused("agent", "a frame is longer than its file")
                if kind == PLAIN and size == stands_for:
                    self.pass_on(write, size)
                    continue
                if max(size, stands_for, length) > MAX_FRAME_BYTES:
                    raise Refused("agent", "a frame is larger than %d bytes" % MAX_FRAME_BYTES)
                payload = self.exactly(size)
                if kind == DEFLATED:
                    write(inflate(payload, stands_for))
                elif kind == PATCH and source:
                    write(patched(os.pread(source.fileno(), length, start), payload, stands_for))
                else:
                    raise Refused("agent", "a frame of no known kind")
        if missing:
            raise Refused("hash-mismatch", "%d bytes have not come" % missing)

    def take(self, size: int) -> bytes:
        try:
            chunk = self.link.take(size, SILENCE_S)
        except HostGone:
            self.left = 0
            raise
        self.left -= len(chunk)
        return chunk

    def exactly(self, size: int) -> bytes:
        if size > self.left:
            raise Refused("agent", "a frame is longer than what was sent")
        chunks = []
        while size:
            chunks.append(self.take(size))
            size -= len(chunks[-1])
        return b"".join(chunks)

    def sweep(self) -> None:
        """Remove interrupted files that are old, or more than a few."""
        with contextlib.suppress(FileNotFoundError):
            kept = sorted(((path.stat().st_mtime, path) for path in self.folder.iterdir()), reverse=True)
            for number, (changed, path) in enumerate(kept):
                if number >= KEPT or not -KEPT_S < time.time() - changed < KEPT_S:
                    path.unlink()
