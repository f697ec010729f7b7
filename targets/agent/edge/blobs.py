"""The files on the device, each under its own digest.

ROOT/blobs/sha256/<digest>   files, complete and hashed, never changed
ROOT/parts/<session>/        files on their way in, and the names of those it asked for; locked by the session's agent,
                             swept when that agent is gone
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from pathlib import Path

from .wire import Json, Refused


class Blobs:
    """The files under one root, and one session's folder for files on their way in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self.parts = root / "parts" / ("%d-%s" % (os.getpid(), os.urandom(6).hex()))
        self.lock_fd = -1

    def open(self) -> None:
        """Make the folders, lock the session's own, and sweep those of dead sessions."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        if self.lock_fd < 0:
            self.parts.mkdir(parents=True)
            self.lock_fd = os.open(str(self.parts / "lock"), os.O_CREAT | os.O_RDONLY, 0o600)
            fcntl.flock(self.lock_fd, fcntl.LOCK_EX)
            self.sweep()

    def close(self) -> None:
        if self.lock_fd >= 0:
            self.leave(self.parts)

    def leave(self, session: Path) -> None:
        """Remove a session's folder, but keep what it has received of unfinished files, for another to go on."""
        kept = self.root / "incoming"
        with contextlib.suppress(OSError):
            for part in session.glob("*.part"):
                kept.mkdir(mode=0o700, exist_ok=True)
                there = kept / part.name
                if not there.exists() or there.stat().st_size < part.stat().st_size:
                    part.replace(there)
        remove(session)

    def others(self, name: str) -> list[Path]:
        """The files of this name in the folders of other sessions that live."""
        found = [path for path in self.parts.parent.glob("*/" + name) if path.parent != self.parts]
        return [path for path in found if locked(path.parent / "lock")]

    def in_use(self) -> set[str]:
        """The files that open sessions have asked for."""
        return {path.name for path in self.parts.parent.glob("*/*") if re.fullmatch("[0-9a-f]{64}", path.name)}

    def sweep(self) -> None:
        """Remove what sessions left whose agents were killed; a living agent holds its lock."""
        for folder in self.parts.parent.iterdir():
            if folder == self.parts:
                continue
            try:
                fd = os.open(str(folder / "lock"), os.O_RDONLY)
            except FileNotFoundError:
                # No lock yet: a session that is just being born, unless it has been so for a minute.
                if time.time() - folder.stat().st_mtime > 60:
                    remove(folder)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.leave(folder)
            except BlockingIOError:
                pass
            finally:
                os.close(fd)

    def blob(self, digest: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise Refused("agent", "not a SHA-256 digest: %r" % digest)
        return self.blobs / digest

    def part(self, digest: str) -> Path:
        return self.parts / (self.blob(digest).name + ".part")

    def have(self, request: Json) -> Json:
        present = []
        for digest, size in request["blobs"].items():
            path = self.blob(digest)
            (self.parts / digest).touch()
            if path.is_file() and path.stat().st_size == size:
                os.utime(path)  # wanted today: see `Releases.prune`
                present.append(digest)
        return {"present": present, "free_disk_bytes": free_bytes(self.root)}


def free_bytes(path: Path) -> int:
    """What a user may still write."""
    found = os.statvfs(str(path))
    return found.f_bavail * found.f_frsize


def remove(session: Path) -> None:
    """A session's folder, which holds files alone."""
    with contextlib.suppress(OSError):
        for path in session.iterdir():
            path.unlink()
        session.rmdir()


def locked(path: Path) -> bool:
    """Whether somebody holds the lock."""
    try:
        fd = os.open(str(path), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
