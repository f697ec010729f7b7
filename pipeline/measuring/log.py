"""Sessions kept: one file each, whole or not at all, for history and for comparing with."""

import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from pipeline import codec
from pipeline.measuring.records import Session

FOLDER = "sessions"


def keep(state: Path, session: Session) -> Path:
    """Store the session with every raw sample; its name begins with its time, so that names sort by it."""
    folder = state / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{session.when.replace(':', '')}-{quote(session.target, safe='')}"
    data = gzip.compress(codec.encode(session), mtime=0)
    for number in range(1000):
        path = folder / (f"{stem}-{number}.json.gz" if number else f"{stem}.json.gz")
        part = folder / f"{path.name}.{os.getpid()}.part"
        part.write_bytes(data)
        try:
            os.link(part, path)  # unlike a rename, it takes no other session's name
        except FileExistsError:
            continue
        finally:
            part.unlink()
        return path
    raise FileExistsError(folder / stem)


def kept(state: Path, target: str = "") -> Iterator[Session]:
    """The sessions in the order of time, of one target if it is named; what cannot be read is passed over."""
    for path in sorted((state / FOLDER).glob("*.json.gz")):
        try:
            session = codec.decode(Session, gzip.decompress(path.read_bytes()))
        except (OSError, EOFError, codec.DamagedRecord):
            continue
        if not target or session.target == target:
            yield session
