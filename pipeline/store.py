"""The state folder `.deploy/`: content-addressed blobs, and one record per finished step.

    .deploy/
      blobs/sha256/ab/abcd…   files, named by their own SHA-256, read-only
      records/<stage>/<name>-<fingerprint>.json
      tmp/                    half-made things; emptied whenever a run starts
      lock                    held by the one run that may write

Everything gets its live name by an atomic rename, so that what is there is whole.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pipeline import codec
from pipeline.errors import HostDiskFull, UsageError

T = TypeVar("T")
_DIGEST = re.compile(rb'"([0-9a-f]{64})"')
_CHUNK_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name in the same folder, flush it to disk, and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def explained_disk_errors(folder: Path) -> Iterator[None]:
    """Turn "no space left" and "read-only" on this host into an error that names the folder and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HostDiskFull(
                f"no space left for {folder}", hint="free some space and run the same command: finished steps are kept"
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise HostDiskFull(
                f"cannot write {error.filename or folder}: {error.strerror}",
                hint="choose folders you may write with --state DIR and --out DIR",
            ) from error
        raise


class Store:
    """Blobs and records under one folder.

    Raises:
        HostDiskFull: the folder cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        self._records = root / "records"
        self._tmp = root / "tmp"

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the state folder for one run; a second run is refused, not queued."""
        with explained_disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / ".gitignore").write_text("*\n")
            lock = (self.root / "lock").open("a+")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                owner = lock.read().strip() or "unknown"
                raise UsageError(
                    f"another run holds {self.root} (process {owner})",
                    hint="wait for it, or give this run a state folder of its own with --state DIR",
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            with explained_disk_errors(self.root):
                shutil.rmtree(self._tmp, ignore_errors=True)
                self._tmp.mkdir()
                yield

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A scratch folder that is gone afterwards."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._tmp, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def path(self, digest: str) -> Path:
        """Where the blob `digest` is (or would be)."""
        return self._blobs / digest[:2] / digest

    def add_file(self, source: Path) -> str:
        """Take a file into the store by moving it (a workspace file) and return its digest."""
        digest = file_digest(source)
        target = self.path(digest)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = self._tmp / f"{digest}.part"
            shutil.move(source, staged)
            with staged.open("rb") as file:
                os.fsync(file.fileno())
            staged.chmod(0o444)
            staged.replace(target)
        return digest

    def add_bytes(self, data: bytes) -> str:
        """Take bytes into the store and return their digest."""
        digest = hashlib.sha256(data).hexdigest()
        target = self.path(digest)
        if not target.exists():
            write_atomically(target, data)
        return digest

    def write_record(self, stage: str, name: str, fingerprint: str, record: object) -> None:
        """Keep a step's record, together with the list of blobs it needs to be of use."""
        encoded = codec.encode(record)
        blobs = {
            digest: self.path(digest).stat().st_size
            for digest in sorted({match.decode() for match in _DIGEST.findall(encoded)})
            if self.path(digest).exists()
        }
        envelope = {"kind": type(record).__name__, "blobs": blobs, "record": json.loads(encoded)}
        write_atomically(self._record_path(stage, name, fingerprint), json.dumps(envelope, sort_keys=True).encode())

    def read_record(self, stage: str, name: str, fingerprint: str, kinds: tuple[type[T], ...]) -> T | None:
        """The record kept for this fingerprint, or None when there is none or something it needs is gone."""
        try:
            envelope = json.loads(self._record_path(stage, name, fingerprint).read_bytes())
            for digest, size in envelope["blobs"].items():
                if self.path(digest).stat().st_size != size:
                    return None
        except (FileNotFoundError, ValueError, KeyError):
            return None
        for kind in kinds:
            if kind.__name__ == envelope["kind"]:
                try:
                    return codec.decode(kind, json.dumps(envelope["record"]).encode())
                except codec.DamagedRecord:
                    return None  # recomputing is the remedy, and it is what happens next
        return None

    def _record_path(self, stage: str, name: str, fingerprint: str) -> Path:
        return self._records / stage / f"{name}-{fingerprint[:32]}.json"
