"""An Android app as far as a model's release is concerned, and what may be said of it: data, no behaviour but names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipeline.fit.records import ModelFormat, OnnxNeeds, OrtNeeds, RuntimeName, TfliteNeeds
from targets.records import Absent

AppKind = Literal["apk", "aab"]
# blocking: the release breaks. warning: look at it. unjudged: a check could not be made, so nothing has passed it.
Severity = Literal["blocking", "warning", "unjudged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong or could not be judged. `file` is a path inside the app; empty: the app as a whole."""

    rule: str
    severity: Severity
    file: str
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of the archive. `path` is the one it has on the device: without the bundle's module."""

    name: str
    module: str  # "base" in an APK
    path: str
    size_bytes: int
    compressed_bytes: int
    stored: bool  # not compressed
    offset: int  # where its content begins in the archive


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model in the app."""

    entry: Entry
    format: ModelFormat
    sha256: str
    needs: TfliteNeeds | OnnxNeeds | OrtNeeds | Absent


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A `lib/ABI/NAME.so`. `load_alignments` are the `p_align` of its LOAD segments, in bytes."""

    entry: Entry
    abi: str
    name: str
    load_alignments: tuple[int, ...] | Absent
    runtime: RuntimeName | None = None
    version: str = ""  # of the runtime, when the library says it


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The few attributes of AndroidManifest.xml that matter here; None is "not written"."""

    min_sdk: int | None = None
    target_sdk: int | None = None
    extract_native_libs: bool | None = None
    native_libraries: tuple[str, ...] = ()  # <uses-native-library>
    asset_pack: bool = False  # the module of a bundle is an asset pack
    on_demand: bool = False  # and does not come with the installation


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleConfig:
    """What a bundle asks of the program that makes APKs of it (bundletool, at Google Play)."""

    uncompressed_globs: tuple[str, ...] = ()
    compress_asset_packs: bool = False
    uncompress_libraries: bool = False
    page_alignment: int | None = None  # bytes; None: left to bundletool


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """All that the rules may know of an app."""

    name: str  # of the file
    kind: AppKind
    sha256: str
    size_bytes: int
    entries: tuple[Entry, ...]
    models: tuple[Model, ...]
    libraries: tuple[Library, ...]
    manifests: Mapping[str, Manifest | Absent]  # by module
    bundle: BundleConfig | Absent  # absent from every APK
    dependencies: Mapping[str, str] = field(default_factory=dict)  # Maven "group:artifact" -> version
    classes: frozenset[str] = frozenset()  # which of `read.CLASSES` the byte code names

    @property
    def manifest(self) -> Manifest | Absent:
        """The app's own manifest."""
        return self.manifests.get("base", Absent(reason="it has no AndroidManifest.xml"))
