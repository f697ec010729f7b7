"""How the archive holds models and libraries: can they be mapped into memory where the app needs that?

16 KB pages: https://developer.android.com/guide/practices/page-sizes (read 2026-11): since 2025-11-01 Google Play takes
apps that target Android 15 (API level 35) only when their 64-bit libraries work with pages of 16 KB: LOAD segments
aligned to 16 KB, and, where libraries are mapped from the APK, their place in it too. 32-bit libraries are exempt.
"""

from collections.abc import Iterator

from pipeline.appcheck.app import App, BundleConfig, Entry, Finding, Library, Manifest
from pipeline.appcheck.asked import Asked
from pipeline.appcheck.globs import matches
from pipeline.appcheck.rules.finding import blocking, listed, unjudged, warning
from pipeline.quantities import size
from targets.records import Absent

PAGE_BYTES, OLD_PAGE_BYTES = 16384, 4096
ABIS_64 = ("arm64-v8a", "x86_64")
_FIRST_API_WITH_16K = 35
_MAPPED_FORMATS = ("tflite", "ort")  # ONNX Runtime parses an .onnx file: nothing of it is mapped
_NO_COMPRESS = "androidResources {{ noCompress += '{suffix}' }} in android {{}} of app/build.gradle"
_ZIPALIGN = "zipalign -P 16 -f 4 {app} aligned.apk, then sign it; the Android Gradle plugin from 8.5.1 on does it"


def models_stored(app: App, asked: Asked) -> Iterator[Finding]:
    """A model that is memory-mapped must not be compressed."""
    for model in app.models:
        if model.format not in _MAPPED_FORMATS:
            continue
        if isinstance(app.bundle, Absent) and app.kind == "aab":
            remedy = "build the bundle again; bundletool writes BundleConfig.pb"
            yield unjudged(
                "model-compressed", model.entry, f"BundleConfig.pb cannot be read: {app.bundle.reason}", remedy
            )
        elif _compressed(app, model.entry):
            packed = f"{size(model.entry.size_bytes)} as {size(model.entry.compressed_bytes)}"
            where = f"is compressed ({packed})" if app.kind == "apk" else "will be compressed in the APKs: no glob of "
            where += "" if app.kind == "apk" else "BundleConfig.pb keeps it uncompressed"
            detail = f'{where}: openFd() fails ("probably compressed"), and it cannot be mapped into memory'
            suffix = model.entry.path.rpartition(".")[2]
            make = blocking if model.format == "tflite" else warning  # ONNX Runtime can also read an .ort from a buffer
            yield make("model-compressed", model.entry, detail, _NO_COMPRESS.format(suffix=suffix))


def _compressed(app: App, entry: Entry) -> bool:
    if app.kind == "apk":
        return not entry.stored
    bundle = app.bundle
    assert isinstance(bundle, BundleConfig)
    found = app.manifests.get(entry.module)
    if isinstance(found, Manifest) and found.asset_pack and (found.on_demand or not bundle.compress_asset_packs):
        return False  # packs are left uncompressed unless the bundle says otherwise
    return not any(matches(glob, entry.path) for glob in bundle.uncompressed_globs)


def pages(app: App, asked: Asked) -> Iterator[Finding]:
    """LOAD segments of 64-bit libraries are aligned to 16 KB."""
    for library in app.libraries:
        if isinstance(library.load_alignments, Absent):
            remedy = "build it again, or take it out of the app"
            yield blocking("elf-unreadable", library.entry, library.load_alignments.reason, remedy)
        elif library.abi in ABIS_64 and (least := min(library.load_alignments, default=PAGE_BYTES)) < PAGE_BYTES:
            detail = f"a LOAD segment is aligned to {least} bytes, 64-bit devices with 16 KB pages need {PAGE_BYTES}"
            make = blocking if _must_have_16k(app) else warning
            yield make("elf-page-size", library.entry, detail, _relink(library))


def _relink(library: Library) -> str:
    if library.runtime == "litert":
        return "a newer LiteRT: raise the version of implementation 'com.google.ai.edge.litert:litert:VERSION'"
    if library.runtime == "onnxruntime":
        return "a newer ONNX Runtime: implementation 'com.microsoft.onnxruntime:onnxruntime-android:1.29.0' has it"
    return "link it with -Wl,-z,max-page-size=16384 (the NDK from r28 on does), or update the dependency it is from"


def _must_have_16k(app: App) -> bool:
    """Google Play asks it of apps that target Android 15; one whose target is unknown is held to it."""
    target = app.manifest.target_sdk if isinstance(app.manifest, Manifest) else None
    return target is None or target >= _FIRST_API_WITH_16K


def zip_alignment(app: App, asked: Asked) -> Iterator[Finding]:
    """Libraries that are mapped from the APK lie on page boundaries in it."""
    if app.kind == "aab":
        yield from _bundle_alignment(app)
        return
    extract = app.manifest.extract_native_libs if isinstance(app.manifest, Manifest) else None
    if extract is not False:
        return  # they are copied out at installation; where they lie in the APK does not matter
    for library in app.libraries:
        entry = library.entry
        page = PAGE_BYTES if library.abi in ABIS_64 else OLD_PAGE_BYTES
        if not entry.stored:
            detail = "is compressed, but extractNativeLibs is false: Android refuses to install the app"
            remedy = "packaging { jniLibs { useLegacyPackaging = false } } in android {} of app/build.gradle"
            yield blocking("lib-compressed", entry, detail, remedy)
        elif entry.offset % page:
            boundary = entry.offset & -entry.offset
            detail = f"lies at byte {entry.offset}, a multiple of {boundary}; mapped libraries need {page}"
            must = _must_have_16k(app) or entry.offset % OLD_PAGE_BYTES
            make = blocking if must else warning
            yield make("zip-page-size", entry, detail, _ZIPALIGN.format(app=app.name))


def _bundle_alignment(app: App) -> Iterator[Finding]:
    libraries = [library.entry.name for library in app.libraries if library.abi in ABIS_64]
    if not libraries or isinstance(app.bundle, Absent) or not app.bundle.uncompress_libraries:
        return
    page = app.bundle.page_alignment
    if page is None:
        detail = (
            f"BundleConfig.pb says nothing of page alignment for {listed(libraries, 2)}: it is bundletool's default"
        )
        remedy = "the Android Gradle plugin 8.5.1 or later; then `bundletool build-apks` and `deploy check` on the APKs"
        yield warning("zip-page-size", None, detail, remedy)
    elif page < PAGE_BYTES:
        detail = f"BundleConfig.pb asks for pages of {page} bytes; mapped 64-bit libraries need {PAGE_BYTES}"
        remedy = "the Android Gradle plugin 8.5.1 or later, without `pageAlignment` in bundletool's configuration"
        yield (blocking if _must_have_16k(app) else warning)("zip-page-size", None, detail, remedy)
