"""Files: reading what the kernel tells, hashing, and making sure that what was written stays."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

READABLE = 0o644  # for the service that uses the model, which may be another user's
PRIVATE = 0o600


def read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def first_text(folder: str, pattern: str) -> str:
    return next((text for path in sorted(Path(folder).glob(pattern)) if (text := read_text(str(path)))), "")


def flush(path: Path) -> None:
    fd = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Give the path this content in one step, whatever was there: after a crash it is the old or the new."""
    new = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    fd = os.open(str(new), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)  # whatever the umask is
        file.write(content)
        file.flush()
        os.fsync(fd)
    new.replace(path)
    flush(path.parent)
