"""Android apps built for a test: real zip archives with exact alignment, real ELF headers, binary manifests."""

import io
import os
import shutil
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

_MACHINES = {"arm64-v8a": (2, 183), "x86_64": (2, 62), "armeabi-v7a": (1, 40), "x86": (1, 3)}
ATTRIBUTES = {"name": 0x01010003, "minSdkVersion": 0x0101020C, "targetSdkVersion": 0x01010270}
ATTRIBUTES |= {"extractNativeLibs": 0x010104EA}
TARGET_35 = [
    ("manifest", {}),
    ("uses-sdk", {"minSdkVersion": 29, "targetSdkVersion": 35}),
    ("application", {"extractNativeLibs": False}),
]
Elements = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class File:
    """A file of the app; a stored one lies at a multiple of `align`."""

    content: bytes
    stored: bool = True
    align: int = 4


@dataclass(frozen=True)
class Built:
    """What goes into an app, to be changed by a test."""

    files: Mapping[str, File] = field(default_factory=dict)

    def plus(self, **files: File) -> "Built":
        return self.with_files(files)

    def with_files(self, files: Mapping[str, File]) -> "Built":
        return replace(self, files={**self.files, **files})

    def without(self, *names: str) -> "Built":
        return replace(self, files={name: file for name, file in self.files.items() if name not in names})

    def write(self, path: Path) -> Path:
        path.write_bytes(zipped(self.files))
        return path


def zipped(files: Mapping[str, File]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, file in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_STORED if file.stored else zipfile.ZIP_DEFLATED
            if file.stored:
                # As zipalign does: an extra field fills up to the boundary.
                spare = -(out.tell() + 30 + len(name.encode()) + 4) % file.align
                info.extra = struct.pack("<HH", 0xD935, spare) + bytes(spare)
            archive.writestr(info, file.content)
    return out.getvalue()


def require_tool(name: str, package: str) -> None:
    """Skip where a genuine tool is not installed; in CI that is a failure, or nobody would notice."""
    if shutil.which(name):
        return
    reason = f"no {name} here: apt-get install {package}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def library(abi: str = "arm64-v8a", *, align: int = 16384, content: bytes = b"") -> bytes:
    """A shared library of two LOAD segments, followed by `content`."""
    bits, machine = _MACHINES[abi]
    wide = bits == 2
    ident = b"\x7fELF" + bytes((bits, 1, 1)) + bytes(9)
    header = struct.Struct("<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH")
    size = 16 + header.size
    segment = struct.Struct("<IIQQQQQQ" if wide else "<IIIIIIII")
    head = ident + header.pack(3, machine, 1, 0, size, 0, 0, size, segment.size, 2, 0, 0, 0)
    loads = []
    for place in (0, align):
        parts = (1, 5, place, place, place, 64, 64, align) if wide else (1, place, place, place, 64, 64, 5, align)
        loads.append(segment.pack(*parts))
    return head + b"".join(loads) + b"\0" + content + b"\0"


def ort_library(version: str = "1.23.2", **options: Any) -> bytes:
    return library(content=f"VERS_{version}".encode(), **options)


def onnx_model(*, opset: int = 17, ir: int = 9) -> bytes:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "same", value[:1], value[1:])
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir
    ).SerializeToString()
    return made


def tflite_model(*ops: tuple[int, int], custom: str = "", filler: bytes = b"") -> bytes:
    """A model of operator codes and versions without a graph; `filler` tells two of them apart."""
    codes = []
    for builtin, version in ops or ((0, 1),):
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), version
        if builtin == schema.BuiltinOperator.CUSTOM:
            code.customCode = custom
        codes.append(code)
    buffer, metadata, model = schema.BufferT(), schema.MetadataT(), schema.ModelT()
    buffer.data = list(b"1.5.0\0") + list(filler)
    metadata.name, metadata.buffer = "min_runtime_version", 1
    model.version, model.operatorCodes, model.subgraphs = 3, codes, []
    model.buffers, model.metadata = [schema.BufferT(), buffer], [metadata]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def axml(elements: Elements) -> bytes:
    """A binary manifest as aapt writes it: pool in UTF-16, resource map, start elements."""
    names = list(ATTRIBUTES)
    pool = [*names, *(name for name, _ in elements)]
    pool += [value for _, given in elements for value in given.values() if isinstance(value, str)]
    texts = [struct.pack("<H", len(text)) + text.encode("utf-16-le") + b"\0\0" for text in pool]
    offsets = [sum(map(len, texts[:place])) for place in range(len(texts))]
    body = b"".join(texts) + bytes(-sum(map(len, texts)) % 4)
    start = 28 + 4 * len(pool)
    strings = struct.pack("<HHIIIIII", 1, 28, start + len(body), len(pool), 0, 0, start, 0)
    strings += struct.pack(f"<{len(pool)}I", *offsets) + body
    numbers = struct.pack("<HHI", 0x180, 8, 8 + 4 * len(names))
    numbers += struct.pack(f"<{len(names)}I", *ATTRIBUTES.values())
    chunks = [strings, numbers]
    for name, given in elements:
        chunk = struct.pack("<IIIIHHHHHH", 1, 0xFFFFFFFF, 0xFFFFFFFF, pool.index(name), 20, 20, len(given), 0, 0, 0)
        for key, value in given.items():
            raw = pool.index(value) if isinstance(value, str) else 0xFFFFFFFF
            kind = 3 if isinstance(value, str) else 0x12 if isinstance(value, bool) else 0x10
            data = raw if isinstance(value, str) else -int(value) & 0xFFFFFFFF if isinstance(value, bool) else value
            chunk += struct.pack("<IIIHBBI", 0xFFFFFFFF, names.index(key), raw, 8, 0, kind, data)
        chunks.append(struct.pack("<HHI", 0x102, 16, 8 + len(chunk)) + chunk)
    whole = b"".join(chunks)
    return struct.pack("<HHI", 3, 8, 8 + len(whole)) + whole


def message(*parts: tuple[int, int | str | bytes]) -> bytes:
    """A protocol buffer."""
    out = b""
    for number, value in parts:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value)
        else:
            content = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(content)) + content
    return out


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))


def proto_manifest(elements: Elements) -> bytes:
    """The same for a bundle; the first element holds the others."""
    (name, given), *children = elements
    parts: list[tuple[int, int | str | bytes]] = [(3, name)]
    parts += [
        (4, message((2, key), (3, str(value).lower() if isinstance(value, bool) else str(value))))
        for key, value in given.items()
    ]
    parts += [(5, proto_manifest([child])) for child in children]
    return message((1, message(*parts)))


def bundle_config(*globs: str, page: int = 2) -> bytes:
    libraries = message((1, 1), *([(2, page)] if page else []))
    return message((2, message((2, libraries))), (3, message(*((1, glob) for glob in globs))))


def dependencies(**versions: str) -> bytes:
    """`group__artifact=version`, with underscores for dots and dashes as Python needs them."""
    maven = []
    for name, version in versions.items():
        group, _, artifact = name.partition("__")
        parts = (1, group.replace("_", ".")), (2, artifact.replace("_", "-")), (5, version)
        maven.append((1, message((1, message(*parts)))))
    return message(*maven)


MODEL = "assets/net.onnx"


def good_apk() -> Built:
    """An ONNX model with its runtime for two ABIs, everything where it should be."""
    return Built(
        {
            "AndroidManifest.xml": File(axml(TARGET_35), stored=False),
            "classes.dex": File(b"dex\n035\0" + bytes(100), stored=False),
            MODEL: File(onnx_model()),
            "lib/arm64-v8a/libonnxruntime.so": File(ort_library(), align=16384),
            "lib/armeabi-v7a/libonnxruntime.so": File(ort_library(abi="armeabi-v7a", align=4096), align=4096),
        }
    )


def good_aab() -> Built:
    """A TFLite model in a bundle, with its runtime from Maven."""
    lib = "base/lib/arm64-v8a/libtensorflowlite_jni.so"
    return Built(
        {
            "BundleConfig.pb": File(bundle_config("**.tflite")),
            "BUNDLE-METADATA/com.android.tools.build.libraries/dependencies.pb": File(
                dependencies(com_google_ai_edge_litert__litert="1.4.0")
            ),
            "base/manifest/AndroidManifest.xml": File(proto_manifest(TARGET_35), stored=False),
            "base/dex/classes.dex": File(b"dex\n035\0" + bytes(100), stored=False),
            "base/assets/net.tflite": File(tflite_model(), stored=False),
            lib: File(library(), stored=False),
        }
    )
