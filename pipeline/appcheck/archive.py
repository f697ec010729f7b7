"""Reading an APK or bundle as a zip archive within bounds; what Android would not take either is refused by name.

Python's `zipfile` finds the entries (zip64 too) and inflates them, never more than an entry's declared size. Everything
that could mislead a reader is refused before anything is inflated: encryption, methods other than stored and deflate,
paths that leave the archive, two entries of one name, overlapping entries, and more data than an app can have.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.appcheck.app import AppKind, Entry
from pipeline.errors import InputError
from pipeline.fit.records import Malformed
from pipeline.quantities import size

_LOCAL_HEADER = struct.Struct("<26xHH")  # the lengths of name and extra field at the end of the 30 bytes
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # traditional, strong, and masked directory
# Google Play's cumulative limit for modules and packs is 4 GB each; twice that, inflated, is no app any more.
_MOST_BYTES = 16 * 10**9
# An APK without zip64 has at most 65,535; large games come near that.
_MOST_ENTRIES = 200_000
# Deflate reaches 1032:1 on constant data. A model of zeros may do that; a hundred megabytes of them are a bomb.
_BOMB_BYTES, _BOMB_RATIO = 100 * 10**6, 200
_TOTAL_BOMB_BYTES, _TOTAL_BOMB_RATIO = 10**9, 50
_CHUNK = 1 << 20


class Archive:
    """The checked entries of an app and their content."""

    def __init__(self, path: Path, file: BinaryIO, zipped: zipfile.ZipFile) -> None:
        self._path, self._file, self._zip = path, file, zipped
        infos = [info for info in zipped.infolist() if not info.is_dir()]
        _refuse(path, infos)
        self._infos = {info.filename: info for info in infos}
        names = set(self._infos)
        self.kind: AppKind = _kind(path, names)
        self.entries = tuple(self._entry(info) for info in infos)

    def read(self, entry: Entry, most_bytes: int) -> bytes:
        """The first `most_bytes` of an entry. Raises Malformed."""
        with self._opened(entry) as content:
            return content.read(most_bytes)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """All of an entry, checked against its CRC. Raises Malformed."""
        with self._opened(entry) as content:
            while chunk := content.read(_CHUNK):
                yield chunk

    @contextmanager
    def _opened(self, entry: Entry) -> Iterator[BinaryIO]:
        try:
            with self._zip.open(self._infos[entry.name]) as content:
                yield content  # type: ignore[misc]  # an IO[bytes] that only reads
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            ValueError,
            NotImplementedError,
            struct.error,
        ) as error:
            raise Malformed(f"{entry.name} cannot be unpacked: {error}") from error

    def _entry(self, info: zipfile.ZipInfo) -> Entry:
        module, path = "base", info.filename
        if self.kind == "aab" and "/" in path:
            module, _, path = path.partition("/")
        return Entry(
            name=info.filename,
            module=module,
            path=path,
            size_bytes=info.file_size,
            compressed_bytes=info.compress_size,
            stored=info.compress_type == zipfile.ZIP_STORED,
            offset=self._content_offset(info),
        )

    def _content_offset(self, info: zipfile.ZipInfo) -> int:
        self._file.seek(info.header_offset)
        header = self._file.read(30)
        if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
            raise _refusal(self._path, f"the header of {info.filename!r} is not where the directory says")
        name, extra = _LOCAL_HEADER.unpack(header)
        return info.header_offset + 30 + int(name) + int(extra)


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The archive of an app.

    Raises:
        InputError: missing, no zip archive, no app, or an archive that only an attacker or a fault makes.
    """
    try:
        with path.open("rb") as file:
            try:
                zipped = zipfile.ZipFile(file)
            except (zipfile.BadZipFile, OSError, EOFError, ValueError, struct.error, NotImplementedError) as error:
                raise _refusal(path, f"is no whole zip archive ({error})") from None
            with zipped:
                yield Archive(path, file, zipped)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file", hint="give the .apk or .aab that the build wrote") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from None


def _refuse(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    if len(infos) > _MOST_ENTRIES:
        raise _refusal(path, f"{len(infos)} entries, an app has at most {_MOST_ENTRIES}")
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        if name in seen:
            raise _refusal(path, f"{name!r} stands twice in it: which one is used depends on the reader")
        seen.add(name)
        if info.flag_bits & _ENCRYPTED:
            raise _refusal(path, f"{name!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refusal(path, f"{name!r} is packed by method {info.compress_type}; Android reads stored and deflate")
        # orig_filename: zipfile cuts a name at its first NUL.
        if name.startswith(("/", "\\")) or "\0" in info.orig_filename or ".." in name.replace("\\", "/").split("/"):
            raise _refusal(path, f"the path {name!r} leaves the archive")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            raise _refusal(path, f"{name!r} is stored, but with two different sizes")
        if info.file_size > _BOMB_BYTES and info.file_size > _BOMB_RATIO * max(info.compress_size, 1):
            shown = f"{size(info.compress_size)} that unpack to {size(info.file_size)}"
            raise _refusal(path, f"{name!r} is a zip bomb: {shown}")
    total = sum(info.file_size for info in infos)
    if total > _MOST_BYTES:
        raise _refusal(path, f"unpacks to {size(total)}, an app has at most {size(_MOST_BYTES)}")
    on_disk = path.stat().st_size
    if total > _TOTAL_BOMB_BYTES and total > _TOTAL_BOMB_RATIO * on_disk:
        raise _refusal(path, f"is a zip bomb: {size(on_disk)} that unpack to {size(total)}")
    ordered = sorted(infos, key=lambda info: info.header_offset)
    for info, following in zip(ordered, [*(i.header_offset for i in ordered[1:]), on_disk], strict=True):
        if info.header_offset < 0 or info.header_offset + 30 + info.compress_size > following:
            raise _refusal(path, f"{info.filename!r} overlaps the entry after it")


def _kind(path: Path, names: set[str]) -> AppKind:
    if "BundleConfig.pb" in names or "base/manifest/AndroidManifest.xml" in names:
        return "aab"
    if "AndroidManifest.xml" in names:
        return "apk"
    if any(name.endswith(".apk") for name in names):
        raise InputError(
            f"{path}: an archive of APKs, not an app", hint="unpack it (or use the .aab) and give the base APK"
        )
    raise InputError(f"{path}: a zip archive, but no Android app", hint="give the .apk or .aab that the build wrote")


def _refusal(path: Path, why: str) -> InputError:
    return InputError(f"{os.fspath(path)}: {why}", hint="build the app again; no Android build writes such an archive")
