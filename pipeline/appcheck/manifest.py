"""AndroidManifest.xml in both of its forms, and the two protocol buffers that a bundle adds.

References: aapt2's Resources.proto (a bundle's manifest), bundletool's config.proto (BundleConfig.pb), and the Android
Gradle plugin's app_dependencies.proto.
"""

from collections.abc import Iterable, Iterator, Mapping

from pipeline.appcheck import axml
from pipeline.appcheck.app import BundleConfig, Manifest
from pipeline.fit import wire
from pipeline.fit.records import Malformed

_DEEPEST = 100  # elements inside one another; a manifest needs six
# bundletool's enum PageAlignment; 0 is "unspecified".
_PAGES = {1: 4096, 2: 16384, 3: 65536}
_COMPRESSED = 2  # enum AssetModuleCompression


def apk_manifest(data: bytes) -> Manifest:
    """The manifest of an APK. Raises Malformed."""
    return _manifest(axml.elements(data))


def bundle_manifest(data: bytes) -> Manifest:
    """The manifest of one module of a bundle. Raises Malformed."""
    return _manifest(_elements(memoryview(data), 0))


def bundle_config(data: bytes) -> BundleConfig:
    """BundleConfig.pb. Raises Malformed."""
    globs: list[str] = []
    compress_packs = uncompress = False
    page = None
    for optimizations in wire.messages(data, 2):
        for libraries in wire.messages(optimizations, 2):
            for number, value in wire.fields(libraries):
                if number == 1:
                    uncompress = bool(wire.number(value))
                elif number == 2:
                    page = _PAGES.get(wire.number(value))
    for compression in wire.messages(data, 3):
        for number, value in wire.fields(compression):
            if number == 1:
                globs.append(wire.text(value))
            elif number == 2:
                compress_packs = wire.number(value) == _COMPRESSED
    return BundleConfig(
        uncompressed_globs=tuple(globs),
        compress_asset_packs=compress_packs,
        uncompress_libraries=uncompress,
        page_alignment=page,
    )


def dependencies(data: bytes) -> dict[str, str]:
    """The Maven libraries that the bundle was built with, as "group:artifact" -> version. Raises Malformed."""
    found = {}
    for library in wire.messages(data, 1):
        for maven in wire.messages(library, 1):
            parts = {number: wire.text(value) for number, value in wire.fields(maven) if not isinstance(value, int)}
            found[f"{parts.get(1, '')}:{parts.get(2, '')}"] = parts.get(5, "")
    return found


def _manifest(found: Iterable[axml.Element]) -> Manifest:
    sdk: Mapping[str, str | int] = {}
    extract: bool | None = None
    libraries: list[str] = []
    pack = on_demand = root = False
    for name, attributes in found:
        root = root or name == "manifest"
        if name == "uses-sdk":
            sdk = attributes
        elif name == "application" and "extractNativeLibs" in attributes:
            extract = str(attributes["extractNativeLibs"]).lower() in ("1", "true")
        elif name == "uses-native-library":
            libraries.append(str(attributes.get("name", "")))
        elif name == "module":
            pack = attributes.get("type") == "asset-pack"
        elif name in ("on-demand", "fast-follow"):
            on_demand = True
    if not root:
        raise Malformed("its manifest has no <manifest>")
    return Manifest(
        min_sdk=_level(sdk.get("minSdkVersion")),
        target_sdk=_level(sdk.get("targetSdkVersion")),
        extract_native_libs=extract,
        native_libraries=tuple(libraries),
        asset_pack=pack,
        on_demand=on_demand,
    )


def _level(value: str | int | None) -> int | None:
    """An API level; the code name of a preview is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else None


def _elements(node: memoryview, depth: int) -> Iterator[axml.Element]:
    if depth > _DEEPEST:
        raise Malformed("its manifest is too deep")
    for element in wire.messages(node, 1):
        name, attributes, children = "", {}, []
        for number, value in wire.fields(element):
            if number == 3:
                name = wire.text(value)
            elif number == 4 and not isinstance(value, int):
                key, given = _attribute(value)
                attributes[key] = given
            elif number == 5 and not isinstance(value, int):
                children.append(value)
        yield name, attributes
        for child in children:
            yield from _elements(child, depth + 1)


def _attribute(data: memoryview) -> tuple[str, str | int]:
    """Name and value; the value is written out, or compiled as the primitive of an item."""
    name, written, compiled = "", "", None
    for number, value in wire.fields(data):
        if number == 2:
            name = wire.text(value)
        elif number == 3:
            written = wire.text(value)
        elif number == 6 and not isinstance(value, int):
            for primitive in wire.messages(value, 7):
                # int_decimal_value, int_hexadecimal_value, boolean_value
                compiled = next((v for n, v in wire.fields(primitive) if n in (6, 7, 8) and isinstance(v, int)), None)
    return name, compiled if compiled is not None and not written else written
