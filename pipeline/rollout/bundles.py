"""The bundles of a rollout: opened with distrust, kept in the state folder, found again by the release's id."""

import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.errors import InputError, UsageError
from pipeline.release.bundle import Bundle, open_bundle
from pipeline.release.keys import PublicKey, signer
from pipeline.rollout.journal import Journal
from pipeline.rollout.release import Release, read_release
from targets.errors import DeployError


class Bundles:
    """Every bundle that this command has opened."""

    def __init__(self, journal: Journal, folder: Path, keys: Sequence[PublicKey] | None) -> None:
        self._journal, self._folder, self._keys = journal, folder, keys
        self._lock, self._lending = threading.Lock(), threading.Lock()
        self._open: dict[str, Bundle] = {}

    def push(self, words: str) -> Release:
        """The release in a bundle file, or one pushed before by the first digits of its id; kept from now on.

        Raises UsageError, and what `open_bundle` raises for a bundle that is not to be trusted.
        """
        path = Path(words)
        if not path.exists():
            path = self._kept(words)
        release = self._add(path)
        kept = self._folder / f"{release.id}.release"
        if not kept.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(".part")
            shutil.copyfile(path, part)
            part.replace(kept)
        self._journal.remember(release, kept)
        return release

    def reopen(self, digest: str) -> Release | None:
        """A release that was pushed before, if its bundle is still there."""
        if digest not in self._open:
            path = self._journal.bundle(digest)
            if path is None or not path.exists():
                return None
            self._add(path)
        return self._journal.release(digest)

    def signed_by(self, release: Release) -> bytes:
        """The public key of ours that has signed a release; b"" when signatures are not asked for."""
        found = signer(release.manifest, release.signature, self._keys or ())
        return found.raw if found else b""

    def blob(self, digest: str) -> Path:
        """The host's copy of a blob, from any open bundle. Raises KeyError."""
        with self._lock:  # taking a file out of a bundle happens once, and devices ask at the same time
            for bundle in self._open.values():
                with suppress(InputError):
                    return bundle.blob(digest)
        raise KeyError(digest)

    def lend(self, digest: str) -> None:
        """Open an older release's bundle if it can be had, for its files: differences are made to them."""
        # Many devices ask at once, and one opening is enough. Without it new files are sent whole.
        with self._lending, suppress(DeployError):
            self.reopen(digest)

    def _add(self, path: Path) -> Release:
        bundle = open_bundle(path, self._keys)
        with self._lock:
            self._open[bundle.id] = bundle
        return read_release(bundle.manifest, bundle.signature)

    def _kept(self, words: str) -> Path:
        found = self._journal.find(words.lower()) if len(words) >= 4 else ()
        if len(found) != 1:
            many = f"{len(found)} releases begin with {words!r}" if found else f"{words}: no such file or release"
            raise UsageError(
                many, hint="give the bundle that `deploy run` wrote into deploy-out, or more digits of a release's id"
            )
        path = self._journal.bundle(found[0])
        if path is None or not path.exists():
            raise UsageError(f"the bundle of release {found[0][:12]} is gone", hint=f"it was {path}")
        return path
