"""The one order in which a file gets onto a device: what is missing, temporary name, hash there, atomic rename.

Whatever goes wrong on the way, no file under a live name is partial: it appears complete and hashed, or not at all.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from targets.errors import DiskFull, HashMismatch, InputError
from targets.releases import Sent
from targets.transport import Progress

# Room left for the agent, its locks and the file system's own growth.
RESERVE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Have:
    """What a device says of the files it was asked for."""

    present: frozenset[str]
    free_disk_bytes: int
    held: Mapping[str, tuple[int, str]]  # how many bytes it has of some others, and their SHA-256
    bases: frozenset[str] = frozenset()  # of those that were asked for
    kinds: str = ""  # of frames that it understands; empty: whole files only


class Store(Protocol):
    """The files on a device, each under its own digest; seen through an open session."""

    @property
    def name(self) -> str:
        """Of the target."""

    @property
    def over(self) -> bool:
        """Whether the session has ended."""

    def have(self, files: Mapping[str, int], bases: frozenset[str] = frozenset()) -> Have:
        """Ask for files by digest and size."""

    def ship(self, files: Mapping[str, Path], bases: Mapping[str, Path], have: Have, progress: Progress | None) -> Sent:
        """Bring the files, each under a temporary name until it is whole and has its digest, else HashMismatch."""

    def room_hint(self) -> str:
        """Where space must be made on the device."""

    def close(self) -> None:
        """End the session; what it had received of unfinished files is kept for going on, or removed."""


def digest_hex(digest: str) -> str:
    """The 64 hex digits of a SHA-256 digest, written with or without `sha256:`."""
    found = re.fullmatch(r"(?:sha256:)?([0-9a-f]{64})", digest)
    if not found:
        raise ValueError(f"not a SHA-256 digest: {digest!r}")
    return found.group(1)


def deliver(
    store: Store, files: Mapping[str, Path], bases: Mapping[str, Path] | None = None, progress: Progress | None = None
) -> Sent:
    """Bring the files to the device that are not there.

    Raises InputError when one cannot be read, DiskFull before sending when they cannot fit, HashMismatch when one
    arrived different, and what the link raises.
    """
    files = {digest_hex(digest): path for digest, path in files.items()}
    known = {digest_hex(digest): path for digest, path in (bases or {}).items()}
    sizes = {digest: _size(path) for digest, path in files.items()}
    have = store.have(sizes, frozenset(known))
    missing = {digest: path for digest, path in files.items() if digest not in have.present}
    if not missing:
        return Sent(bytes_on_wire=0, files_sent=0, delta_files=0, resumed_bytes=0)
    needed = sum(sizes[digest] - have.held.get(digest, (0, ""))[0] for digest in missing)
    if needed + RESERVE_BYTES > have.free_disk_bytes:
        what = next(iter(missing.values())).name if len(missing) == 1 else f"{len(missing)} files"
        raise DiskFull(
            f"{store.name}: {what} needs {needed:,} bytes, {have.free_disk_bytes:,} are free on the device",
            hint=store.room_hint(),
        )
    there = {digest: path for digest, path in known.items() if digest in have.bases}
    try:
        return store.ship(missing, there, have, progress)
    except HashMismatch:
        if not there:
            raise
        # A base that has rotted there makes a wrong file: once more without any.
        return deliver(store, files, None, progress)


def _size(path: Path) -> int:
    try:
        with path.open("rb"):
            return path.stat().st_size
    except OSError as fault:
        raise InputError(f"{path} cannot be read: {fault.strerror}") from fault
