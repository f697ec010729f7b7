"""Files: reading what the kernel tells, hashing, and making sure that what was written stays."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


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
