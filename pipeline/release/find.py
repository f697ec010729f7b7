"""Which release a user means: a bundle file, a number, or the beginning of an id."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError, UsageError, nearest
from pipeline.release.bundle import open_bundle, read_manifest
from pipeline.release.history import History, names
from pipeline.release.records import Manifest, ReleaseEntry

_ID_PREFIX = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A release, wherever it was found."""

    id: str
    record: Manifest
    date: str  # "" when it comes from a file: a bundle has no date
    signed_by: str  # fingerprint as the history has it; "" when it comes from a file


def the_name(state: Path, asked: str | None) -> str:
    """The name to look at: the one asked for, or the only one.

    Raises:
        UsageError: there is no history, several names, or not the one asked for.
    """
    known = names(state)
    if not known:
        raise UsageError(
            f"{state}: has no history yet", hint="`deploy run` begins it; --state DIR names another folder"
        )
    if asked is None and len(known) > 1:
        raise UsageError(f"{state}: has the history of {', '.join(known)}", hint=f"say which: --name {known[0]}")
    if asked is not None and asked not in known:
        raise UsageError(f"--name {asked}: has no history{nearest(asked, known)}", hint=f"there is {', '.join(known)}")
    return asked or known[0]


def find_release(text: str, state: Path, name: str | None) -> Found:
    """The release that `text` means.

    Raises:
        UsageError: none, or several.
        BundleRefused: it is a file, and no release that is whole.
    """
    path = Path(text)
    if path.is_file():
        opened = open_bundle(path, None)
        return Found(id=opened.id, record=opened.record, date="", signed_by="")
    if not text.isdecimal() and not _ID_PREFIX.fullmatch(text):
        raise InputError(
            f"{text}: is no file, no number of a release and no beginning of an id", hint="`deploy history` lists them"
        )
    releases = History(state, the_name(state, name)).releases()
    if text.isdecimal() and int(text) in releases:
        return found(releases[int(text)])
    alike = [entry for entry in releases.values() if len(text) >= 4 and entry.id.startswith(text)]
    if len(alike) != 1:
        raise UsageError(f"{text}: {_how_many(alike)}", hint="`deploy history` lists them")
    return found(alike[0])


def found(entry: ReleaseEntry) -> Found:
    """A release of the history."""
    record = read_manifest(entry.manifest.encode())
    return Found(id=entry.id, record=record, date=entry.date, signed_by=entry.signed_by)


def _how_many(alike: Iterable[ReleaseEntry]) -> str:
    ids = [entry.id[:12] for entry in alike]
    return f"may be {' or '.join(ids)}" if ids else "there is no such release"
