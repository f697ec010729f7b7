"""A release in one file: written deterministically, opened with distrust.

    manifest.json  manifest.sig  MODEL_CARD.md  blobs/sha256/<digest>…  bom.cdx.json

An uncompressed tar, so that a store finds the blobs of two releases alike. The manifest names every other file with
its size and hash; so its size is known before anything else is read, and what it does not name is refused.
"""

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pipeline import codec
from pipeline.release import archive
from pipeline.release.keys import SIGNATURE_BYTES, PublicKey, signer
from pipeline.release.records import SCHEMA, ClassModel, Manifest
from pipeline.store import file_digest
from targets.errors import BundleRefused, BundleSignature, EnvironmentFault, InputError

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
CARD, BOM = "MODEL_CARD.md", "bom.cdx.json"
SUFFIX = ".release"
_BLOBS = "blobs/sha256/"
# Lineage of a large model with its search has some 100 kB; a device reads the manifest into memory.
MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SAY = "make it again with `deploy run`"


class _Folder:
    """A folder that is gone when nobody has it any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="release-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle: every byte of it was checked against the manifest, and the manifest against the keys given."""

    path: Path
    id: str
    manifest: bytes
    signature: bytes  # b"" when there is none
    signed_by: PublicKey | None  # one of the keys it was opened with; None when opened without
    record: Manifest
    texts: Mapping[str, bytes]  # the model card and the bill of materials, by file name
    _places: Mapping[str, tuple[int, int]] = field(repr=False)  # digest -> where it begins, and how long it is
    _folder: "_Folder" = field(repr=False)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def sequence(self) -> int:
        return self.record.sequence

    @property
    def classes(self) -> Mapping[str, ClassModel]:
        return self.record.classes

    @property
    def digests(self) -> tuple[str, ...]:
        """All files that `blob` has."""
        return tuple(self._places)

    def blob(self, digest: str) -> Path:
        """A file of the release, taken out into a folder that lives as long as the bundle, and hashed again there.

        Raises:
            BundleRefused: the bundle has changed since it was opened.
            InputError: the release has no such file.
        """
        if digest not in self._places:
            raise InputError(f"{self.path}: has no file {digest[:16]}…", hint="`deploy release show` lists them")
        path = self._folder.path / digest
        if not path.exists():
            start, size = self._places[digest]
            with self.path.open("rb") as file, path.open("wb") as out:
                file.seek(start)
                while size and (chunk := file.read(min(size, 1 << 20))):
                    out.write(chunk)
                    size -= len(chunk)
            if size or file_digest(path) != digest:
                path.unlink()
                raise BundleRefused(f"{self.path}: has changed since it was opened", hint="open it again")
            path.chmod(0o444)
        return path


def release_id(manifest: bytes) -> str:
    """What a release is called: the hash of its manifest."""
    return hashlib.sha256(manifest).hexdigest()


def bundle_name(manifest: Manifest) -> str:
    """Its file name, `NAME-SEQ.release`."""
    return f"{manifest.name}-{manifest.sequence}{SUFFIX}"


def write_bundle(
    path: Path, manifest: bytes, blobs: Mapping[str, Path], texts: Mapping[str, bytes], signature: bytes = b""
) -> None:
    """Write the bundle of `manifest`, whole or not at all; the same arguments always give the same bytes.

    Args:
        blobs: digest → file, at least for every digest that the manifest names.
        texts: the files of `manifest.files`, by name.

    Raises:
        BundleRefused: the manifest names something that is not here, or that is another than it says.
        EnvironmentFault: `path` cannot be written.
    """
    record = read_manifest(manifest)
    files: dict[str, bytes | Path] = {MANIFEST: manifest}
    if signature:
        files[SIGNATURE] = signature
    for name, expected in _expected(record).items():
        digest = expected.digest
        content = blobs.get(digest) if name.startswith(_BLOBS) else texts.get(name)
        if content is None:
            raise BundleRefused(f"{name} of the release is missing", hint=_SAY)
        found = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_digest(content)
        if found != digest:
            raise BundleRefused(f"{name} of the release is not the file that was judged", hint=_SAY)
        files[name] = content
    staged = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as out:
            archive.write_archive(out, files)
            out.flush()
            os.fsync(out.fileno())
        staged.replace(path)
    except OSError as error:
        raise EnvironmentFault(f"cannot write {path}: {error.strerror}", hint="make room, or choose --out") from None
    finally:
        staged.unlink(missing_ok=True)


def open_bundle(path: Path, keys: Sequence[PublicKey] | None) -> Bundle:
    """Read and check all of a bundle.

    Args:
        keys: one of them must have signed it; with none in the sequence, nothing is good enough. None: do not ask who
            signed; the bundle is checked for being whole only.

    Raises:
        BundleSignature: not signed, or by none of these keys.
        BundleRefused: damaged, made by hand, or of a newer `deploy`.
        InputError: there is no such file.
    """
    try:
        with path.open("rb") as file, _naming(path):
            return _opened(path, file, keys)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="`deploy run` writes NAME-SEQ.release") from None


def _opened(path: Path, file: BinaryIO, keys: Sequence[PublicKey] | None) -> Bundle:
    name, size = archive.next_name(file)
    if name != MANIFEST or not size:
        raise BundleRefused("is no release: it does not begin with manifest.json", hint=_SAY)
    if size > MANIFEST_LIMIT_BYTES:
        raise BundleRefused(f"its manifest of {size} bytes is over the limit of {MANIFEST_LIMIT_BYTES}", hint=_SAY)
    manifest = b"".join(archive.read_file(file, MANIFEST, size))
    signature = b""
    if archive.next_name(file)[0] == SIGNATURE:
        signature = b"".join(archive.read_file(file, SIGNATURE, SIGNATURE_BYTES))
    signed_by = _check_signature(manifest, signature, keys) if keys is not None else None
    record = read_manifest(manifest)
    expected = _expected(record)
    sizes = {MANIFEST: size, **({SIGNATURE: SIGNATURE_BYTES} if signature else {})}
    whole = archive.total_bytes(sizes | {name: file.size_bytes for name, file in expected.items()})
    there = os.fstat(file.fileno()).st_size
    if there != whole:
        raise BundleRefused(f"has {there} bytes, its manifest says {whole}", hint="fetch it again, it is not whole")
    places, texts = {}, {}
    for name, wanted in expected.items():
        places[wanted.digest] = (file.tell() + archive.BLOCK_BYTES, wanted.size_bytes)
        kept = []
        digest = hashlib.sha256()
        for chunk in archive.read_file(file, name, wanted.size_bytes):
            digest.update(chunk)
            if not name.startswith(_BLOBS):
                kept.append(chunk)
        if digest.hexdigest() != wanted.digest:
            raise BundleRefused(f"{name} is not the file that the manifest names", hint="fetch it again")
        if not name.startswith(_BLOBS):
            texts[name] = b"".join(kept)
            del places[wanted.digest]
    archive.expect_end(file)
    return Bundle(
        path=path,
        id=release_id(manifest),
        manifest=manifest,
        signature=signature,
        signed_by=signed_by,
        record=record,
        texts=texts,
        _places=places,
        _folder=_Folder(),
    )


def read_manifest(manifest: bytes) -> Manifest:
    """The record in a manifest's bytes. Raises BundleRefused: damaged, not canonical, or of a newer `deploy`."""
    try:
        head = codec.decode(dict, manifest)
        schema = head.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise BundleRefused(
                f"its manifest has schema {schema}, this `deploy` knows up to {SCHEMA}", hint="use a newer `deploy`"
            )
        record = codec.decode(Manifest, manifest)
        if codec.canonical(head) != manifest:
            raise BundleRefused("its manifest is not in canonical form", hint=_SAY)
    except codec.DamagedRecord as error:
        raise BundleRefused(error.message, hint=_SAY) from None
    names = [record.name, *record.classes, *(model.file for model in record.classes.values())]
    for name in names:
        if not SAFE_NAME.fullmatch(name):
            raise BundleRefused(f"its manifest has the name {name!r}, which is none for a file", hint=_SAY)
    if schema != SCHEMA or record.sequence < 1 or not record.classes:
        raise BundleRefused("its manifest has no schema, no sequence, or no model", hint=_SAY)
    return record


def _check_signature(manifest: bytes, signature: bytes, keys: Sequence[PublicKey]) -> PublicKey:
    if not signature:
        raise BundleSignature("is not signed", hint="`deploy release sign FILE --key KEY`, or `release: {key: …}`")
    found = signer(manifest, signature, keys)
    if found is None:
        known = ", ".join(key.fingerprint for key in keys) or "none"
        raise BundleSignature(f"is signed by no key that is trusted here ({known})", hint="do not use it")
    return found


@dataclass(frozen=True, slots=True)
class _Expected:
    digest: str
    size_bytes: int


def _expected(record: Manifest) -> dict[str, _Expected]:
    """Every file but manifest and signature, by name, sorted. Raises BundleRefused for what contradicts itself."""
    found: dict[str, _Expected] = {}
    for name, text in record.files.items():
        if name not in (CARD, BOM):
            raise BundleRefused(f"its manifest names {name!r}, which is no file of a release", hint=_SAY)
        found[name] = _Expected(text.sha256, text.size_bytes)
    for model in record.classes.values():
        pairs = [(model.blob, model.size_bytes), *model.beside.items()]
        for golden in model.golden:
            pairs += [(golden.inputs, golden.inputs_bytes), (golden.expected, golden.expected_bytes)]
        for digest, size in pairs:
            entry = _Expected(digest, size)
            if found.setdefault(f"{_BLOBS}{digest}", entry) != entry:
                raise BundleRefused(f"its manifest gives {digest[:16]}… two sizes", hint=_SAY)
    for entry in found.values():
        # A tar of this kind holds 8 GiB in one file.
        if not _DIGEST.fullmatch(entry.digest) or not 0 <= entry.size_bytes < 8 << 30:
            raise BundleRefused("its manifest names a file without a proper hash or size", hint=_SAY)
    return dict(sorted(found.items()))


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Say which file an error is about."""
    try:
        yield
    except BundleRefused as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from None
