"""One pass over an app: what of it the rules need, and nothing else, is read, unpacked and hashed."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.appcheck import elf, manifest, runtime
from pipeline.appcheck.app import App, BundleConfig, Entry, Library, Manifest, Model
from pipeline.appcheck.archive import Archive, opened
from pipeline.fit.needs import is_tflite, needs_of
from pipeline.fit.records import RUNTIME_OF, Malformed, ModelFormat, RuntimeName
from targets.records import Absent

# Names of classes in the byte code, as type descriptors have them, that tell what the app uses.
CLASSES = (
    "org/tensorflow/lite/nnapi/NnApiDelegate",
    "org/tensorflow/lite/gpu/GpuDelegate",
    "com/google/android/gms/tflite",
)
_SUFFIXES: dict[str, ModelFormat] = {".tflite": "tflite", ".onnx": "onnx", ".ort": "ort"}
_LIBRARY = re.compile(r"lib/([^/]+)/([^/]+\.so)")
_BYTE_CODE = re.compile(r"(dex/)?classes\d*\.dex")
_MANIFEST_PATHS = {"apk": "AndroidManifest.xml", "aab": "manifest/AndroidManifest.xml"}
_DEPENDENCIES = "BUNDLE-METADATA/com.android.tools.build.libraries/dependencies.pb"
# Models without a suffix of theirs are looked for where apps keep files, by their first bytes.
_FILES = ("assets/", "res/raw/")
_HEAD_BYTES = 64 * 1024
_MOST_MANIFEST_BYTES = 4 * 10**6  # the largest of real apps are under one
# A model beyond this is not loaded from an app's archive on any phone; Play takes packs of 1.5 GB.
_MOST_MODEL_BYTES = 2 * 10**9
_MOST_LIBRARY_BYTES = 10**9


def read_app(path: Path) -> App:
    """Everything about an app that a rule may ask.

    Raises:
        InputError: it cannot be read as an app (see `archive.opened`).
    """
    with opened(path) as archive:
        models = tuple(
            _model(archive, entry, format) for entry in archive.entries if (format := _format(archive, entry))
        )
        libraries = [_library(archive, entry, found[1], found[2]) for entry, found in _libraries(archive)]
        wanted = {RUNTIME_OF[model.format] for model in models}
        return App(
            name=path.name,
            kind=archive.kind,
            sha256=_digest(path),
            size_bytes=path.stat().st_size,
            entries=archive.entries,
            models=models,
            libraries=tuple(_with_linked(archive, libraries, wanted)),
            manifests=_manifests(archive),
            bundle=_bundle(archive),
            dependencies=_dependencies(archive),
            classes=_classes(archive),
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _format(archive: Archive, entry: Entry) -> ModelFormat | None:
    name = entry.path.lower()
    for suffix, format in _SUFFIXES.items():
        if name.endswith(suffix):
            return format
    if entry.path.startswith(_FILES) and entry.size_bytes >= 16:
        try:
            return "tflite" if is_tflite(archive.read(entry, 8)) else None
        except Malformed:
            return None
    return None


def _model(archive: Archive, entry: Entry, format: ModelFormat) -> Model:
    digest = hashlib.sha256()
    needs = None
    try:
        if entry.size_bytes > _MOST_MODEL_BYTES:
            raise Malformed("is too large for any phone")
        data = b"".join(archive.chunks(entry))
        digest.update(data)
        needs = needs_of(format, data)
    except Malformed as error:
        return Model(entry=entry, format=format, sha256=digest.hexdigest(), needs=Absent(reason=str(error)))
    return Model(entry=entry, format=format, sha256=digest.hexdigest(), needs=needs)


def _libraries(archive: Archive) -> Iterable[tuple[Entry, re.Match[str]]]:
    return [(entry, found) for entry in archive.entries if (found := _LIBRARY.fullmatch(entry.path))]


def _library(archive: Archive, entry: Entry, abi: str, name: str) -> Library:
    known = runtime.LIBRARIES.get(name)
    try:
        data = archive.read(entry, _HEAD_BYTES)
        if (end := elf.headers_end(data[:64])) > len(data):
            data = archive.read(entry, min(end, _MOST_LIBRARY_BYTES))
        alignments: tuple[int, ...] | Absent = elf.parse(data).load_alignments
        version = _version(archive, entry, known, data) if known else ""
    except Malformed as error:
        return Library(entry=entry, abi=abi, name=name, load_alignments=Absent(reason=str(error)), runtime=known)
    return Library(entry=entry, abi=abi, name=name, load_alignments=alignments, runtime=known, version=version)


def _version(archive: Archive, entry: Entry, known: RuntimeName, head: bytes) -> str:
    """The version a library tells. ONNX Runtime's stands near its start: its 30 MB need not be unpacked for that."""
    return runtime.version_of(known, head) or runtime.version_of(known, archive.read(entry, _MOST_LIBRARY_BYTES))


def _with_linked(archive: Archive, libraries: list[Library], wanted: set[RuntimeName]) -> list[Library]:
    """The libraries, after a look into all of them for runtimes that the models need and no library's name tells."""
    missing = wanted - {library.runtime for library in libraries}
    if not missing:
        return libraries
    found = []
    for library in libraries:
        if library.runtime is None:
            try:
                data = archive.read(library.entry, _MOST_LIBRARY_BYTES)
            except Malformed:
                data = b""
            linked = next((name for mark, name in runtime.MARKS.items() if name in missing and mark in data), None)
            if linked:
                library = replace(library, runtime=linked, version=runtime.version_of(linked, data))
        found.append(library)
    return found


def _manifests(archive: Archive) -> dict[str, Manifest | Absent]:
    parse = manifest.apk_manifest if archive.kind == "apk" else manifest.bundle_manifest
    found: dict[str, Manifest | Absent] = {}
    for entry in archive.entries:
        if entry.path == _MANIFEST_PATHS[archive.kind]:
            try:
                found[entry.module] = parse(archive.read(entry, _MOST_MANIFEST_BYTES))
            except Malformed as error:
                found[entry.module] = Absent(reason=str(error))
    return found


def _bundle(archive: Archive) -> BundleConfig | Absent:
    if archive.kind == "apk":
        return Absent(reason="an APK has none")
    try:
        return manifest.bundle_config(_content(archive, "BundleConfig.pb"))
    except Malformed as error:
        return Absent(reason=str(error))


def _dependencies(archive: Archive) -> dict[str, str]:
    try:
        return manifest.dependencies(_content(archive, _DEPENDENCIES))
    except Malformed:
        return {}


def _content(archive: Archive, name: str) -> bytes:
    for entry in archive.entries:
        if entry.name == name:
            return archive.read(entry, _MOST_MANIFEST_BYTES)
    raise Malformed(f"there is no {name}")


def _classes(archive: Archive) -> frozenset[str]:
    found: set[str] = set()
    for entry in archive.entries:
        if _BYTE_CODE.fullmatch(entry.path):
            try:
                data = archive.read(entry, _MOST_LIBRARY_BYTES)
            except Malformed:
                continue
            found |= {name for name in CLASSES if name.encode() in data}
    return frozenset(found)
