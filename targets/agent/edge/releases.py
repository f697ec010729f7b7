"""The releases on the device: staged complete or not at all, switched in one step, never older than was proved.

Layout and promises stand in `targets.releases`. Each operation holds ROOT/releases.lock and leaves, wherever it is
killed, a state from which the same operation leads to the same end. What is not done yet carries the suffix `.new`.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from pathlib import Path
from typing import Iterator

from .blobs import Blobs
from .files import READABLE, flush, sha256_of, write_file
from .lease import Lease, boot_id
from .manifest import DIGEST, MAX_MANIFEST_BYTES, Manifest, parse
from .trust import Trust
from .wire import Json, Refused

LOCK_S = 120.0  # the longest another session's operation takes: hashing a large model on a slow card
RECENT_S = 24 * 3600  # a file that was asked for within a day may be wanted again
LINKS = ("current", "previous", "confirmed")


class Releases:
    """The operations of one session."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs, self.root = blobs, blobs.root
        self.folder = self.root / "releases"
        self.trust, self.lease = Trust(self.root), Lease(self.root)

    # --- what is there ---

    def installed(self, _: Json) -> Json:
        owner, left = self.lease.holder()
        current = self.linked("current")
        previous = self.linked("previous")
        return {
            "current": current,
            "previous": "" if previous == current else previous,
            "confirmed": self.linked("confirmed"),
            "releases": self.complete(),
            "floor": self.floor(),
            "keys": self.trust.keys(),
            "free_disk_bytes": shutil.disk_usage(self.root).free,
            "boot_id": boot_id(),
            "lease_owner": owner,
            "lease_left_s": left,
        }

    def linked(self, name: str) -> str:
        """The release that a link names; "" when there is none, or it is not there."""
        try:
            folder, _, release = os.readlink(self.root / name).partition("/")  # noqa: PTH115
        except OSError:
            return ""
        good = folder == "releases" and DIGEST.fullmatch(release) and (self.folder / release).is_dir()
        return release if good else ""

    def complete(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if DIGEST.fullmatch(path.name))

    def floor(self) -> dict[str, int]:
        try:
            return dict(json.loads((self.root / "floor.json").read_bytes()))
        except FileNotFoundError:
            return {}

    def manifest(self, release: str) -> Manifest:
        """The manifest of a staged release, for the class it was staged for."""
        if not DIGEST.fullmatch(release):
            raise Refused("agent", "not a release: %r" % release)
        folder = self.folder / release
        if not folder.is_dir():
            raise Refused("not-staged", "release %s is not there" % release[:16])
        try:
            device_class = json.loads((folder / "staged.json").read_bytes())["class"]
            found = parse((folder / "manifest.json").read_bytes(), device_class)
        except (FileNotFoundError, ValueError, KeyError) as fault:
            raise Refused(
                "hash-mismatch", "release %s is damaged: stage it again (%s)" % (release[:16], fault)
            ) from None
        if found.id != release:
            raise Refused("hash-mismatch", "the manifest of %s has changed; stage it again" % release[:16])
        return found

    def checked(self, release: str) -> Manifest:
        """The same, after a look at every byte of the model: flash rots."""
        found = self.manifest(release)
        wanted = {found.file: found.blob, **{digest: digest for digest in found.beside}}
        places = {self.folder / release / name: digest for name, digest in wanted.items()}
        if any(not path.is_file() or sha256_of(path) != digest for path, digest in places.items()):
            raise Refused("hash-mismatch", "the model of %s has changed: transfer and stage it again" % release[:16])
        return found

    # --- changes ---

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Change something, unless another owner holds the lease."""
        with self.locked():
            self.lease.check()
            yield

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One session at a time."""
        fd = os.open(str(self.root / "releases.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            end = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise Refused("timeout", "another session kept the releases all the time") from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(fd)

    def stage(self, request: Json) -> Json:
        content, signature = (base64.b64decode(request[key], validate=True) for key in ("manifest", "signature"))
        if len(content) > MAX_MANIFEST_BYTES:
            raise Refused("release-refused", "a manifest of %d bytes" % len(content))
        found = parse(content, request["class"])
        with self.turn():
            self.trust.check(signature, content)
            for digest, size in found.sizes.items():
                self.check_blob(digest, size)
            self.place(found, content, signature, request["class"])
        return {}

    def check_blob(self, digest: str, size: int) -> None:
        path = self.blobs.blob(digest)
        if not path.is_file():
            raise Refused("hash-mismatch", "file %s is not on the device; transfer it" % digest)
        if path.stat().st_size != size or sha256_of(path) != digest:
            path.unlink()
            raise Refused("hash-mismatch", "the stored file %s has changed; transfer it again" % digest)

    def place(self, found: Manifest, content: bytes, signature: bytes, device_class: str) -> None:
        self.folder.mkdir(mode=0o755, exist_ok=True)
        for left in self.folder.glob("*.new"):
            shutil.rmtree(left)
        live = self.folder / found.id
        if live.is_dir() and self.staged_for(live) != device_class:
            if found.id in self.protected():
                raise Refused("release-refused", "release %s is in use, for another class" % found.id[:16])
            self.remove(live)
        # One that is there is repaired file by file, each in one step: it may be in use.
        folder = live if live.is_dir() else self.folder / (found.id + ".new")
        folder.mkdir(mode=0o755, exist_ok=True)
        staged = json.dumps({"class": device_class}).encode()
        for name, text in (("manifest.json", content), ("manifest.sig", signature), ("staged.json", staged)):
            path = folder / name
            if not path.is_file() or path.read_bytes() != text:
                write_file(path, text, READABLE)
        for digest in found.beside:
            link(self.blobs.blob(digest), folder / digest)
        link(self.blobs.blob(found.blob), folder / found.file)
        flush(folder)
        if folder != live:
            folder.replace(live)
        flush(self.folder)

    def staged_for(self, folder: Path) -> str:
        try:
            return str(json.loads((folder / "staged.json").read_bytes())["class"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def activate(self, request: Json) -> Json:
        release = request["release"]
        with self.turn():
            found = self.checked(release)
            folder = self.folder / release
            self.trust.check((folder / "manifest.sig").read_bytes(), (folder / "manifest.json").read_bytes())
            current = self.linked("current")
            if current == release:
                return {}
            floor = self.floor().get(found.name, 0)
            if found.sequence < floor and not request["allow_downgrade"]:
                raise Refused(
                    "downgrade", "%s %d is older than %d, which has run here" % (found.name, found.sequence, floor)
                )
            if current and current == self.linked("confirmed"):
                self.switch("previous", current)
            self.switch("current", release)
        return {}

    def revert(self, request: Json) -> Json:
        release = request["release"]
        with self.turn():
            if release == "":
                with contextlib.suppress(FileNotFoundError):
                    (self.root / "current").unlink()
                flush(self.root)
                return {}
            self.checked(release)
            if release not in self.protected():
                raise Refused("not-staged", "release %s was not in use here: activate it" % release[:16])
            if release != self.linked("current"):
                self.switch("current", release)
        return {}

    def confirm(self, request: Json) -> Json:
        release = request["release"]
        with self.turn():
            if not release or release != self.linked("current"):
                raise Refused("not-staged", "release %s is not the current one" % release[:16])
            found, floor = self.manifest(release), self.floor()
            # The floor first: whoever finds the release confirmed can rely on it.
            if floor.get(found.name, -1) < found.sequence:
                floor[found.name] = found.sequence
                write_file(self.root / "floor.json", json.dumps(floor, sort_keys=True).encode(), READABLE)
            if self.linked("confirmed") != release:
                self.switch("confirmed", release)
        return {}

    def protected(self) -> set[str]:
        return {self.linked(name) for name in LINKS} - {""}

    def switch(self, name: str, release: str) -> None:
        new = self.root / (name + ".new")
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        new.symlink_to("releases/" + release)
        new.replace(self.root / name)
        flush(self.root)

    def remove(self, live: Path) -> int:
        """Take a release's live name away, then its files; how many bytes they alone held."""
        gone = live.with_name(live.name + ".new")
        live.replace(gone)
        flush(self.folder)
        freed = sum(path.stat().st_size for path in gone.iterdir() if path.stat().st_nlink == 1)
        shutil.rmtree(gone)
        return freed

    def prune(self, request: Json) -> Json:
        with self.turn():
            freed = 0
            if self.folder.is_dir():
                for left in self.folder.glob("*.new"):
                    shutil.rmtree(left)
            protected = self.protected()
            spare = sorted((name for name in self.complete() if name not in protected), key=self.age)
            for release in spare[max(0, request["keep"] - len(protected)) :]:
                freed += self.remove(self.folder / release)
            freed += self.collect()
        return {"freed_bytes": freed}

    def age(self, release: str) -> tuple[float, ...]:
        """What sorts the newest first, and damaged ones last."""
        try:
            return (-self.manifest(release).sequence, -(self.folder / release).stat().st_mtime)
        except Refused:
            return (1.0,)

    def collect(self) -> int:
        """Remove files that no release needs and nobody has asked for lately."""
        used = self.blobs.in_use()
        for release in self.complete():
            with contextlib.suppress(Refused):
                used.update(self.manifest(release).sizes)
        freed, now = 0, time.time()
        for path in self.blobs.blobs.iterdir():
            seen = path.stat()
            if path.name not in used and abs(now - seen.st_mtime) > RECENT_S:
                freed += seen.st_size if seen.st_nlink == 1 else 0
                path.unlink()
        return freed

    def add_key(self, request: Json) -> Json:
        with self.turn():
            self.trust.add(bytes.fromhex(request["key"]), bytes.fromhex(request["signature"]))
        return {}

    def take_lease(self, request: Json) -> Json:
        with self.locked():
            self.lease.take(request)
        return {}

    def give_back(self, request: Json) -> Json:
        with self.locked():
            self.lease.give_back(request["owner"])
        return {}


def link(blob: Path, name: Path) -> None:
    """Give a stored file a second name, in one step; on a file system without links, copy it."""
    if name.exists() and name.samefile(blob):
        return
    new = name.with_name(name.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    try:
        os.link(blob, new)
    except OSError as fault:
        if fault.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        shutil.copyfile(blob, new)
        new.chmod(READABLE)
        flush(new)
    new.replace(name)
