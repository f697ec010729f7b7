"""What every stage is given: where to keep things, where to run converters, and what deploy.yaml says."""

import errno
import hashlib
import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config_file import LoadedConfig
from pipeline.errors import ConversionFailed
from pipeline.flow import Progress
from pipeline.records import Refusal
from pipeline.samples import DataSpec
from pipeline.samples.spec import FolderTruth
from pipeline.store import Store, disk_fault, file_digest
from pipeline.worker import JobRaised, Worker, WorkerDied

_LEAST_FREE_BYTES = 64 * 1024  # less than any converter writes at once


__all__ = ["Context", "Progress", "check_room", "content_digest", "data_settings", "reference_digest", "refusing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The surroundings of one run."""

    loaded: LoadedConfig
    store: Store
    worker: Worker

    @property
    def base(self) -> Path:
        return self.loaded.base

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for one job's files."""
        with self.store.workspace() as folder:
            yield folder


def refusing(context: Context, stage: str, work: Callable[[], Any]) -> Any:
    """Run `work`; a converter's failure becomes a `Refusal` and the other candidates go on.

    Raises:
        HostDiskFull: the converter failed with no room left: that is no judgement on the model, and not remembered.
    """
    try:
        return work()
    except (WorkerDied, JobRaised) as error:
        check_room(context)
        killed = isinstance(error, WorkerDied) and error.killed
        return Refusal(
            stage=stage, reason=error.message, hint=error.hint, last_output=error.last_output, transient=killed
        )
    except ConversionFailed as error:
        return Refusal(stage=stage, reason=error.message, hint=error.hint)


def check_room(context: Context) -> None:
    """Raise HostDiskFull when the disk of the state folder is full: converters fail of that in many other words."""
    free = shutil.disk_usage(context.store.root).free
    if free < _LEAST_FREE_BYTES:
        raise disk_fault(OSError(errno.ENOSPC, "", str(context.store.root)), context.store.root)


def content_digest(path: Path) -> str:
    """SHA-256 of a file, or over the names and contents of all files in a folder; of a missing path, of its absence."""
    if path.is_file():
        return file_digest(path)
    whole = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else ():
        whole.update(f"{file.relative_to(path).as_posix()!r}{file_digest(file)}".encode())
    return whole.hexdigest()


def data_settings(spec: DataSpec, base: Path) -> dict[str, Any]:
    """A data set for a fingerprint: what is declared about it, and a digest of every file it names."""
    named = [spec.path, spec.tokenizer]
    if isinstance(spec.truth, str):
        named.append(spec.truth)
    elif isinstance(spec.truth, FolderTruth):
        named.append(spec.truth.folder)
    return {
        "declared": spec.model_dump(mode="json"),
        "files": {name: reference_digest(name, base) for name in named if name},
    }


def reference_digest(name: str, base: Path) -> str:
    """Digest of a path, or of the file that a `file.py:function` or `module:function` comes from."""
    path = base / name
    if path.exists() or ":" not in name:
        return content_digest(path)
    module = name.rpartition(":")[0]
    if (base / module).exists():
        return content_digest(base / module)
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    return file_digest(Path(found.origin)) if found and found.origin and Path(found.origin).exists() else ""
