"""The history in the state folder: every run, and every release with its number.

    history/<name>/releases/000007.json    history/<name>/runs/20261125T112233.123456Z.json

An entry appears complete and is never changed, so that readers need no lock. A release takes its number by giving
its entry a name that nobody has: of two at once, one gets it and the other the next.
"""

import os
import re
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pipeline import codec
from pipeline.release.records import ReleaseEntry, RunEntry
from pipeline.store import explained_disk_errors

T = TypeVar("T")
_NUMBER = re.compile(r"(\d{6,})\.json")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class History:
    """The runs and releases of one name."""

    def __init__(self, state: Path, name: str) -> None:
        self._releases = state / "history" / name / "releases"
        self._runs = state / "history" / name / "runs"
        self._state = state

    def releases(self) -> dict[int, ReleaseEntry]:
        """Sequence → entry, oldest first."""
        numbered = [(int(found[1]), path) for path in _files(self._releases) if (found := _NUMBER.fullmatch(path.name))]
        return {number: codec.decode(ReleaseEntry, path.read_bytes()) for number, path in sorted(numbered)}

    def runs(self) -> list[RunEntry]:
        """Oldest first."""
        return [codec.decode(RunEntry, path.read_bytes()) for path in _files(self._runs) if path.suffix == ".json"]

    def add_release(self, make: Callable[[int], ReleaseEntry], *, at_least: int = 1) -> tuple[int, ReleaseEntry]:
        """Take the next number for a release, which `make` is given.

        Raises:
            HostDiskFull: the state folder cannot be written.
        """
        with explained_disk_errors(self._state):
            taken = [int(found[1]) for path in _files(self._releases) if (found := _NUMBER.fullmatch(path.name))]
            sequence = max(at_least, max(taken, default=0) + 1)
            while True:
                entry = make(sequence)
                if _add(self._releases / f"{sequence:06}.json", entry):
                    return sequence, entry
                sequence += 1

    def sign_release(self, sequence: int, entry: ReleaseEntry) -> None:
        """Replace a release's entry by one that differs in its signature."""
        with explained_disk_errors(self._state):
            path = self._releases / f"{sequence:06}.json"
            staged = path.with_name(f".{path.name}.{os.getpid()}")
            staged.write_bytes(codec.encode(entry))
            staged.replace(path)

    def add_run(self, entry: RunEntry) -> None:
        """Keep what a run found."""
        with explained_disk_errors(self._state):
            while not _add(self._runs / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.json", entry):
                pass  # another run in the same microsecond


def names(state: Path) -> list[str]:
    """What the history has releases or runs of."""
    return [path.name for path in _files(state / "history")]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def _add(path: Path, entry: object) -> bool:
    """Write the entry under this name, whole; False when the name is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, staged = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(codec.encode(entry))
            file.flush()
            os.fsync(file.fileno())
        Path(staged).chmod(0o644)
        os.link(staged, path)
    except FileExistsError:
        return False
    finally:
        Path(staged).unlink(missing_ok=True)
    return True
