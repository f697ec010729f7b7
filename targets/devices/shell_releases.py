"""The release store of a device that has only a shell: the layout of `targets.releases`, kept by the device's commands.

The host decides and checks signatures, against the keys that lie on the device; hashes are made on the device. One
session changes something at a time (`turn`); what is not done yet carries the suffix `.new`. Where the file system has
no symbolic links, `current`, `previous` and `confirmed` are files that hold the same text.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from targets.agent.edge import ed25519
from targets.agent.edge.lease import MAX_LEASE_S
from targets.agent.edge.manifest import DIGEST, MAX_MANIFEST_BYTES, Manifest, parse
from targets.agent.edge.wire import Refused
from targets.delivery import deliver
from targets.devices.app_folder import AppFolder
from targets.devices.shell_hook import run_hook
from targets.devices.shell_session import ShellSession, free_bytes
from targets.devices.turn import turn
from targets.errors import (
    AgentFailed,
    Downgrade,
    HashMismatch,
    InputError,
    Leased,
    NotStaged,
    ReleaseRefused,
    SignatureRefused,
)
from targets.releases import TRUST_PREFIX, HookRun, Installed, Sent
from targets.transport import Progress

NOTE = "signatures are checked by the host only: this device has no Python"
_LOCK_S = 120.0  # the longest another session's operation takes: hashing a large model on a slow card

_STATE = """
cd "$1" || exit
for name in current previous confirmed; do
  said=
  if [ -L $name ]; then said=$(readlink $name); elif [ -f $name ]; then read -r said <$name; fi
  echo "$name $said"
done
for path in releases/*; do [ ! -d "$path" ] || echo "release ${path##*/}"; done
for path in trust/*; do [ ! -f "$path" ] || echo "key ${path##*/}"; done
[ ! -f floor.json ] || { read -r said <floor.json; echo "floor $said"; }
[ ! -f lease.json ] || { read -r said <lease.json; echo "lease $said"; }
read -r boot </proc/sys/kernel/random/boot_id && echo "boot $boot"
read -r up rest </proc/uptime && echo "up $up"
df -kP .
"""
_SYNC = '{ fsync "$1" 2>/dev/null || sync "$1" 2>/dev/null || sync; }'
_WRITE = f"""
mkdir -p "${{2%/*}}" && printf '%s\\n' "$3" >"$2.new" && chmod 644 "$2.new" && root=$1 live=$2 && set -- "$2.new" &&
  {_SYNC} && mv -f "$1" "$live" && set -- "$root" && {_SYNC}
"""
# GNU's and busybox's mv replace a link in one step; toybox's does not, but its ln does: it renames a link made beside.
_SWITCH = f"""
cd "$1" && rm -f "$2.new" && wanted=releases/$3 && {{
  {{ ln -s "$wanted" "$2.new" && mv -fT "$2.new" "$2"; }} 2>/dev/null || ln -sfn "$wanted" "$2" 2>/dev/null
  rm -f "$2.new"
  [ "$(readlink "$2")" = "$wanted" ] || {{ [ ! -L "$2" ] && echo "$wanted" >"$2.new" && mv -f "$2.new" "$2"; }}
}} && {_SYNC}
"""
# One that is there is repaired file by file, each in one step: it may be in use. Each is a second name of the stored
# file where the device allows that, else a copy, and is hashed where it lies.
_PLACE = f"""
root=$1 id=$2; shift 2
cd "$root" && mkdir -p releases && rm -rf releases/*.new && live=releases/$id && folder=$live &&
{{ [ -d "$live" ] || {{ folder=$live.new && mkdir "$folder" && chmod 755 "$folder"; }}; }} &&
while [ $# -gt 1 ]; do
  [ "$folder/$1" -ef "blobs/sha256/$2" ] || {{
    {{ ln "blobs/sha256/$2" "$folder/$1.new" 2>/dev/null || cp "blobs/sha256/$2" "$folder/$1.new"; }} &&
    chmod 644 "$folder/$1.new" && mv -f "$folder/$1.new" "$folder/$1"; }} || break
  found=$(sha256sum <"$folder/$1") || break
  [ "${{found%% *}}" = "$2" ] || {{ changed=yes; shift $#; break; }}
  path=$folder/$1; shift 2
  set -- "$path" "$@" && {_SYNC} && shift || break
done && [ $# = 0 ] && if [ -z "$changed" ]; then
  {{ [ "$folder" = "$live" ] || mv "$folder" "$live"; }} && set -- releases && {_SYNC}
else echo changed; fi
"""
_HASH = 'found=$(sha256sum <"$1") && echo "${found%% *}"'
_REMOVE = 'cd "$1/releases" && du -sk "$2" && mv "$2" "$2.new" && rm -rf "$2.new"'
# Files that nothing uses and nobody has brought within a day; programs that were installed are links to such files.
_COLLECT = """
cd "$1/blobs/sha256" && shift && used=" $* $(for link in ../../installed/*/*; do readlink "$link"; done) "
find . -type f -mmin +1440 | while read -r path; do name=${path#./}
  case $used in *"$name"*) ;; *) stat -c %s "$name" && rm -f "$name";; esac
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What the device's disk says, and the clock that began with its start."""

    installed: Installed
    uptime_s: float


class ShellReleases:
    """`targets.releases.Releases`, over the device's shell."""

    def __init__(self, session: ShellSession, app: AppFolder | None = None) -> None:
        self._session = session
        self._app = app

    def installed(self) -> Installed:
        return self._read().installed

    def transfer(
        self, files: Mapping[str, Path], bases: Mapping[str, Path] | None = None, progress: Progress | None = None
    ) -> Sent:
        return deliver(self._session, files, None, progress)

    def stage(self, manifest: bytes, signature: bytes, device_class: str) -> None:
        if len(manifest) > MAX_MANIFEST_BYTES:
            raise InputError(f"a manifest of {len(manifest):,} bytes; devices take up to {MAX_MANIFEST_BYTES:,}")
        found = self._parsed(manifest, device_class)
        with self._turn() as here:
            self._check_signature(here, manifest, signature)
            self._check_files(found)
            if found.id in here.releases and self._class_of(found.id) != device_class:
                if found.id in (here.current, here.previous, here.confirmed):
                    raise ReleaseRefused(f"{self._name}: release {found.id[:16]} is in use, for another class")
                self._remove(found.id)
            staged = json.dumps({"class": device_class}).encode()
            texts = {"manifest.json": manifest, "manifest.sig": signature, "staged.json": staged}
            pairs = [word for pair in self._bring(texts).items() for word in pair]
            pairs += [word for digest in found.beside for word in (digest, digest)]
            words = (self._root, found.id, *pairs, found.file, found.blob)
            if self._script(_PLACE, *words, doing="staging a release").strip():
                raise HashMismatch(f"{self._name}: the model has changed on its way into the release; stage it again")

    def activate(self, release: str, *, allow_downgrade: bool = False) -> None:
        with self._turn() as here:
            found, manifest = self._checked(release, here)
            self._check_signature(here, manifest, self._file(release, "manifest.sig"))
            if here.current == release:
                self._hand_over(release)
                return
            floor = here.floor.get(found.name, 0)
            if found.sequence < floor and not allow_downgrade:
                told = f"{found.name} {found.sequence} is older than {floor}, which has run here"
                raise Downgrade(f"{self._name}: {told}", hint="--allow-downgrade if you mean it")
            if here.current and here.current == here.confirmed:
                self._switch("previous", here.current)
            self._switch("current", release)
            self._hand_over(release)

    def revert(self, to: str) -> None:
        with self._turn() as here:
            if not to:
                if self._app:
                    self._app.remove()
                self._script('rm -f "$1/current"; set -- "$1"; ' + _SYNC, self._root, doing="switching to no release")
                return
            self._checked(to, here)
            if to not in (here.current, here.previous, here.confirmed):
                raise NotStaged(f"{self._name}: release {to[:16]} was not in use here: activate it")
            if to != here.current:
                self._switch("current", to)
            self._hand_over(to)

    def confirm(self, release: str) -> None:
        with self._turn() as here:
            if not release or release != here.current:
                raise NotStaged(f"{self._name}: release {release[:16]} is not the current one")
            found, floor = self._staged(release, here)[0], dict(here.floor)
            # The floor first: whoever finds the release confirmed can rely on it.
            if floor.get(found.name, -1) < found.sequence:
                self._write("floor.json", json.dumps({**floor, found.name: found.sequence}, sort_keys=True))
            if here.confirmed != release:
                self._switch("confirmed", release)

    def prune(self, keep: int) -> int:
        with self._turn() as here:
            known: dict[str, Manifest | None] = {}
            for release in here.releases:
                try:
                    known[release] = self._staged(release, here)[0]
                except HashMismatch:
                    known[release] = None
            protected = {here.current, here.previous, here.confirmed} - {""}
            spare = [release for release in known if release not in protected]
            spare.sort(key=lambda release: -found.sequence if (found := known[release]) else 1)
            freed = 0
            for release in spare[max(0, keep - len(protected)) :]:
                freed += self._remove(release)
                del known[release]
            used = {digest for found in known.values() if found for digest in found.sizes}
            said = self._script(_COLLECT, self._root, *sorted(used), doing="removing old files")
            return freed + sum(map(int, said.split()))

    def trust(self, public_key: bytes, signature: bytes = b"") -> None:
        with self._turn() as here:
            if public_key.hex() in here.keys:
                return
            if not ed25519.valid_key(public_key):
                raise SignatureRefused(f"{self._name}: {public_key.hex()} is no Ed25519 public key")
            if here.keys and not _signed(here.keys, signature, TRUST_PREFIX + public_key):
                raise SignatureRefused(f"{self._name}: no key that is trusted here has vouched for it")
            self._write(f"trust/{public_key.hex()}", signature.hex())

    def lease(self, owner: str, seconds: float) -> None:
        if not owner.isprintable() or not 0 < len(owner) <= 200 or not 0 < seconds <= MAX_LEASE_S:
            raise InputError(f"no lease: {owner!r} for {seconds} s")
        with self._turn(owner) as here:
            until = self._read().uptime_s + seconds
            kept = {"owner": owner, "boot": here.boot_id, "seconds": seconds, "until": until}
            self._write("lease.json", json.dumps(kept))
        self._session.acting_for = owner

    def release_lease(self, owner: str) -> None:
        with turn(self._session, _LOCK_S, "releases.turn"):
            if self._read().installed.lease_owner == owner:
                self._script('rm -f "$1/lease.json"', self._root, doing="giving the device back")
        if self._session.acting_for == owner:
            self._session.acting_for = ""

    def hook(self, argv: Sequence[str], deadline_s: float) -> HookRun:
        return run_hook(self._session, argv, self._read().installed.current, deadline_s)

    # --- what is there ---

    @property
    def _name(self) -> str:
        return self._session.name

    @property
    def _root(self) -> str:
        return self._session.root

    def _script(self, text: str, *words: str, doing: str) -> str:
        return self._session.script(text, *words, doing=doing)

    def _read(self) -> _Found:
        said = self._script(_STATE, self._root, doing="asking for its releases")
        try:
            found = _parse(said)
        except (ValueError, KeyError, TypeError) as fault:
            raise AgentFailed(f"{self._name}: what it says of its releases cannot be read ({fault!r})") from fault
        if self._app and self._app.release() != found.installed.current:  # asked first: it may let us not in at all
            # What the app has not got is not in use: activating it again gives it to the app.
            return replace(found, installed=replace(found.installed, current=""))
        return found

    @contextmanager
    def _turn(self, owner: str = "") -> Iterator[Installed]:
        """Change something, unless another owner holds the lease."""
        with turn(self._session, _LOCK_S, "releases.turn"):
            here = self._read().installed
            if here.lease_owner and here.lease_owner != (owner or self._session.acting_for):
                told = f"{here.lease_owner} has it to itself, for {here.lease_left_s:.0f} s yet"
                raise Leased(f"{self._name}: {told}", hint="wait for it, or for its end")
            yield here

    def _file(self, release: str, name: str) -> bytes:
        return self._session.read(f"{self._root}/releases/{release}/{name}")

    def _there(self, path: str) -> bool:
        return not self._script('[ -f "$1" ] || echo no', path, doing="looking for a file").strip()

    def _class_of(self, release: str) -> str:
        try:
            return str(json.loads(self._file(release, "staged.json"))["class"])
        except (ValueError, KeyError, TypeError):
            return ""

    def _staged(self, release: str, here: Installed) -> tuple[Manifest, bytes]:
        if not DIGEST.fullmatch(release) or release not in here.releases:
            raise NotStaged(f"{self._name}: release {release[:16]!r} is not there", hint="push it again")
        manifest = self._file(release, "manifest.json")
        if hashlib.sha256(manifest).hexdigest() != release or not (device_class := self._class_of(release)):
            raise HashMismatch(f"{self._name}: the manifest of {release[:16]} has changed; stage it again")
        return self._parsed(manifest, device_class), manifest

    def _checked(self, release: str, here: Installed) -> tuple[Manifest, bytes]:
        """The same, after a look at every byte of the model: flash rots."""
        found, manifest = self._staged(release, here)
        for name, digest in {found.file: found.blob, **{digest: digest for digest in found.beside}}.items():
            path = f"{self._root}/releases/{release}/{name}"
            if not self._there(path) or self._script(_HASH, path, doing="hashing a model").strip() != digest:
                told = f"the model of {release[:16]} has changed: transfer and stage it again"
                raise HashMismatch(f"{self._name}: {told}")
        return found, manifest

    def _parsed(self, manifest: bytes, device_class: str) -> Manifest:
        try:
            return parse(manifest, device_class)
        except Refused as fault:
            raise ReleaseRefused(f"{self._name}: {fault}") from None

    def _check_files(self, found: Manifest) -> None:
        try:
            self._session.check({digest: digest for digest in found.sizes})
        except AgentFailed as fault:  # which for a benchmark is a mistake of ours, and here an answer
            raise HashMismatch(fault.message, hint="transfer it again") from None

    def _check_signature(self, here: Installed, manifest: bytes, signature: bytes) -> None:
        if not here.keys or _signed(here.keys, signature, manifest):
            return
        what = "has signed the release" if signature else "can have signed the release: it is unsigned"
        raise SignatureRefused(f"{self._name}: no key that is trusted here {what}")

    # --- changes ---

    def _hand_over(self, release: str) -> None:
        """The app's copy of what is current; put there anew when it has gone, as after a new installation."""
        if self._app and self._app.release() != release:
            found = self._parsed(self._file(release, "manifest.json"), self._class_of(release))
            self._app.put(release, f"{self._root}/releases/{release}/{found.file}", found.file, found.blob)

    def _bring(self, texts: Mapping[str, bytes]) -> Mapping[str, str]:
        """Store short texts as files of the store; name → digest."""
        digests = {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
        with tempfile.TemporaryDirectory() as folder:
            for name, text in texts.items():
                (Path(folder) / name).write_bytes(text)
            deliver(self._session, {digest: Path(folder) / name for name, digest in digests.items()})
        return digests

    def _write(self, name: str, text: str) -> None:
        self._script(_WRITE, self._root, f"{self._root}/{name}", text, doing=f"writing {name.partition('/')[0]}")

    def _switch(self, name: str, release: str) -> None:
        self._script(_SWITCH, self._root, name, release, doing="switching the release")

    def _remove(self, release: str) -> int:
        said = self._script(_REMOVE, self._root, release, doing="removing an old release")
        return int(said.split()[0]) * 1024


def _signed(keys: Sequence[str], signature: bytes, message: bytes) -> bool:
    return any(ed25519.verify(bytes.fromhex(key), signature, message) for key in keys)


def _parse(said: str) -> _Found:
    lines = said.splitlines()
    words: dict[str, list[str]] = {}
    for line in lines:
        key, _, rest = line.partition(" ")
        words.setdefault(key, []).append(rest.strip())
    complete = sorted(name for name in words.get("release", []) if DIGEST.fullmatch(name))

    def linked(name: str) -> str:
        release = words.get(name, [""])[0].removeprefix("releases/")
        return release if release in complete else ""

    uptime_s, boot_id = float(words["up"][0]), words.get("boot", [""])[0]
    lease = json.loads(words["lease"][0]) if "lease" in words else {}
    left_s = 0.0
    if lease:
        # Nobody knows how long a device was off: after a restart the whole lease begins again.
        end_s = float(lease["until"]) if lease["boot"] == boot_id else float(lease["seconds"])
        left_s = max(0.0, min(float(lease["seconds"]), end_s - uptime_s))
    current, previous = linked("current"), linked("previous")
    installed = Installed(
        current=current,
        previous="" if previous == current else previous,
        confirmed=linked("confirmed"),
        releases=tuple(complete),
        floor={str(key): int(value) for key, value in json.loads(words.get("floor", ["{}"])[0]).items()},
        keys=tuple(sorted(key for key in words.get("key", []) if DIGEST.fullmatch(key))),
        free_disk_bytes=free_bytes(said),
        boot_id=boot_id,
        lease_owner=str(lease["owner"]) if left_s > 0 else "",
        lease_left_s=left_s,
        note=NOTE,
    )
    return _Found(installed=installed, uptime_s=uptime_s)
