"""The state folder `.deploy/`: content-addressed blobs, and one record per finished step.

    .deploy/
      blobs/sha256/ab/abcd…   files, named by their own SHA-256, read-only
      records/<stage>/<name>-<fingerprint>.json
      unfinished/<stage>-<name>/<key>/   checkpoints of a step that takes long
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline import codec, model_files
from pipeline.errors import ConversionFailed, HostDiskFull, UsageError
from pipeline.records import Format

T = TypeVar("T")
_DIGEST = re.compile(rb'"([0-9a-f]{64})"')
_CHUNK_BYTES = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def explained_disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system says of this host's disks into an error that names the place and the remedy.

    `folder` is named where the operating system names no file.
    """
    try:
        yield
    except OSError as error:
        raise disk_fault(error, folder) from error


def disk_fault(error: OSError, folder: Path) -> HostDiskFull:
    """The error of ours for an OSError on a path of this host."""
    place = error.filename or folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostDiskFull(
            f"no space left on this host's disk for {place}",
            hint="free some space, or choose other folders with --state DIR and --out DIR, and run the same command: "
            "finished steps are kept",
        )
    return HostDiskFull(
        f"cannot write {place}: {error.strerror or error}",
        hint="choose folders you may write with --state DIR and --out DIR",
    )


def check_writable(folder: Path) -> None:
    """Raise HostDiskFull when `folder` could not be made or written; makes nothing itself."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise disk_fault(OSError(errno.ENOTDIR, "not a directory", str(there)), folder)
    if not os.access(there, os.W_OK | os.X_OK):
        raise disk_fault(OSError(errno.EACCES, "permission denied, or the disk is read-only", str(there)), folder)


def _holds(path: Path, size_bytes: int) -> bool:
    # A blob that was cut short by others must be replaced, or the step that made it could never mend it.
    return path.exists() and path.stat().st_size == size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A model in the store."""

    blob: str
    beside: Mapping[str, int]  # digest -> bytes, of the files in its folder that hold its weights
    size_bytes: int  # of all of them


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
        self._unfinished = root / "unfinished"

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
            except BlockingIOError:
                lock.seek(0)
                owner = lock.read().strip() or "unknown"
                raise UsageError(
                    f"another run holds {self.root} (process {owner})",
                    hint="wait for it, or give this run a state folder of its own with --state DIR",
                ) from None
            with explained_disk_errors(self.root):
                lock.truncate(0)
                lock.write(str(os.getpid()))
                lock.flush()
                shutil.rmtree(self._tmp, ignore_errors=True)
                self._tmp.mkdir(exist_ok=True)
            yield

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """A scratch folder that is gone afterwards."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._tmp, ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def unfinished(self, stage: str, name: str, key: str) -> Path:
        """A folder for the checkpoints of a long step, which outlives a killed run; those of other keys are deleted."""
        folder = self._unfinished / f"{stage}-{name}"
        for other in folder.glob("*"):
            if other.name != key:
                shutil.rmtree(other, ignore_errors=True)
        (folder / key).mkdir(parents=True, exist_ok=True)
        return folder / key

    def finish(self, stage: str, name: str) -> None:
        """Delete the checkpoints of a step that is done."""
        shutil.rmtree(self._unfinished / f"{stage}-{name}", ignore_errors=True)

    def path(self, digest: str) -> Path:
        """Where the blob `digest` is (or would be)."""
        return self._blobs / digest[:2] / digest

    def add_file(self, source: Path) -> str:
        """Take a file into the store by moving it (a workspace file) and return its digest."""
        digest = file_digest(source)
        target = self.path(digest)
        if not _holds(target, source.stat().st_size):
            target.parent.mkdir(parents=True, exist_ok=True)
            staged = self._tmp / f"{digest}.part"
            shutil.move(source, staged)
            with staged.open("rb") as file:
                os.fsync(file.fileno())
            staged.chmod(0o444)
            staged.replace(target)
        return digest

    def add_model(self, format: Format, source: Path) -> Kept:
        """Take a model and what lies beside it into the store, where each has a second name in the model's folder.

        Raises:
            ConversionFailed: a file beside it is not named by its digest.
        """
        names = model_files.beside(format, source)
        found = {}
        for name in names:
            place = source.parent / name
            size_bytes = place.stat().st_size
            known = self.path(name)
            digest = name if known.exists() and known.samefile(place) else self.add_file(place)
            if digest != name:
                raise ConversionFailed(f"its weights in {name[:16]}… have changed", hint="make the model again")
            found[digest] = size_bytes
        own_bytes = source.stat().st_size
        blob = self.add_file(source)
        with explained_disk_errors(self.root):
            for digest in found:
                model_files.link(self.path(digest), self.path(blob).parent / digest)
        return Kept(blob=blob, beside=found, size_bytes=own_bytes + sum(found.values()))

    def add_bytes(self, data: bytes) -> str:
        """Take bytes into the store and return their digest."""
        digest = hashlib.sha256(data).hexdigest()
        target = self.path(digest)
        if not _holds(target, len(data)):
            self._write(target, data)
        return digest

    def write_record(
        self, stage: str, name: str, fingerprint: str, record: object, made_from: Mapping[str, str] | None = None
    ) -> None:
        """Keep a step's record, the blobs it needs to be of use, and the digests of the records it was made from."""
        encoded = codec.encode(record)
        blobs = {
            digest: self.path(digest).stat().st_size
            for digest in sorted({match.decode() for match in _DIGEST.findall(encoded)})
            if self.path(digest).exists()
        }
        envelope = {
            "kind": type(record).__name__,
            "blobs": blobs,
            "made_from": dict(made_from or {}),
            "record": json.loads(encoded),
        }
        self._write(self._record_path(stage, name, fingerprint), json.dumps(envelope, sort_keys=True).encode())

    def read_record(
        self,
        stage: str,
        name: str,
        fingerprint: str,
        kinds: tuple[type[T], ...],
        made_from: Mapping[str, str] | None = None,
    ) -> T | None:
        """The record kept for this fingerprint and made from these records.

        None when there is none, it was made from others, or a blob it needs is gone: recomputing is the remedy.
        """
        try:
            envelope = json.loads(self._record_path(stage, name, fingerprint).read_bytes())
            if envelope["made_from"] != dict(made_from or {}):
                return None
            for digest, size in envelope["blobs"].items():
                if self.path(digest).stat().st_size != size:
                    return None
            for kind in kinds:
                if kind.__name__ == envelope["kind"]:
                    return codec.decode(kind, json.dumps(envelope["record"]).encode())
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, codec.DamagedRecord):
            return None
        return None

    def _write(self, path: Path, data: bytes) -> None:
        """Write under a temporary name, flush to disk, rename. A kill leaves its litter in `tmp`, which is emptied."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._tmp)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            path.parent.mkdir(parents=True, exist_ok=True)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _record_path(self, stage: str, name: str, fingerprint: str) -> Path:
        return self._records / stage / f"{name}-{fingerprint[:32]}.json"
