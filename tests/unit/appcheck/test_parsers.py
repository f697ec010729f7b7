"""Each parser reads what the genuine writer wrote, and gives a value or `Malformed` for any other bytes."""

import re
from collections.abc import Callable
from pathlib import Path

import apps
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pipeline.appcheck import axml, elf, manifest, runtime
from pipeline.appcheck.globs import matches
from pipeline.fit import needs, wire
from pipeline.fit.records import Malformed, OnnxNeeds, OrtNeeds, TfliteNeeds

_PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "axml": (lambda data: list(axml.elements(data)), apps.axml(list(apps.TARGET_35))),
    "apk manifest": (manifest.apk_manifest, apps.axml(list(apps.TARGET_35))),
    "bundle manifest": (manifest.bundle_manifest, apps.proto_manifest(list(apps.TARGET_35))),
    "bundle config": (manifest.bundle_config, apps.bundle_config("**.tflite", "a")),
    "dependencies": (manifest.dependencies, apps.dependencies(a__b="1.0", c__d="2")),
    "wire": (lambda data: list(wire.fields(data)), apps.bundle_config("**.tflite")),
    "tflite": (lambda data: needs.needs_of("tflite", data), apps.tflite_model((9, 12), (0, 1))),
    "onnx": (lambda data: needs.needs_of("onnx", data), apps.onnx_model()),
    "ort": (lambda data: needs.needs_of("ort", data), b"\x08\0\0\0ORTM"),
    "elf": (elf.parse, apps.library()),
    "elf 32": (elf.parse, apps.library("armeabi-v7a")),
    "elf end": (elf.headers_end, apps.library()),
    "litert version": (lambda data: runtime.version_of("litert", data), apps.library(content=b"TfLiteVersion")),
}


@pytest.mark.parametrize("parser", _PARSERS)
@settings(max_examples=60, deadline=1000)
@given(st.data())
def test_any_bytes_give_a_value_or_malformed(parser: str, data: st.DataObject) -> None:
    parse, whole = _PARSERS[parser]
    damaged = bytearray(whole)
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=6)):
        damaged[place] = value
    cut = data.draw(st.integers(0, len(whole)))
    for given_bytes in (bytes(damaged), whole[:cut], whole[:4] + data.draw(st.binary(max_size=200))):
        try:
            parse(given_bytes)
        except Malformed as error:
            assert str(error)


def test_what_tflite_needs() -> None:
    read = needs.needs_of("tflite", apps.tflite_model((9, 12), (150, 2), (32, 1), custom="FlexErf"))
    assert read == TfliteNeeds(ops=((9, 12), (150, 2)), custom=("FlexErf",), min_runtime="1.5.0")


def test_what_onnx_needs() -> None:
    assert needs.needs_of("onnx", apps.onnx_model(opset=19, ir=8)) == OnnxNeeds(ir=8, opset=19, domains=())


def test_domains_count_where_a_node_uses_them(tmp_path: Path) -> None:
    """onnxruntime lists every domain it knows in the models that it writes."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    inner = helper.make_graph([helper.make_node("Mine", ["x"], ["z"], domain="my.ops")], "then", [], [value[1]])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1), helper.make_opsetid("unused", 1)]
    made = helper.make_model(helper.make_graph([branch], "g", value[:1], value[1:]), opset_imports=opsets, ir_version=9)
    assert needs.needs_of("onnx", made.SerializeToString()) == OnnxNeeds(
        ir=9, opset=17, domains=("my.ops",), ops=("my.ops.Mine",)
    )


def test_what_onnxruntime_writes_as_ort_needs_a_format_version(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "net.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(apps.onnx_model(), options, providers=["CPUExecutionProvider"])
    read = needs.needs_of("ort", (tmp_path / "net.ort").read_bytes())
    assert isinstance(read, OrtNeeds) and read.version.isdecimal()


def test_a_manifest_without_attribute_names_is_read_by_their_numbers() -> None:
    written = apps.axml(list(apps.TARGET_35))
    stripped = written.replace("minSdkVersion".encode("utf-16-le"), "xxxxxxxxxxxxx".encode("utf-16-le"))
    assert stripped != written
    assert manifest.apk_manifest(stripped).min_sdk == 29


def test_the_two_manifests_say_the_same() -> None:
    library = [*apps.TARGET_35, ("uses-native-library", {"name": "libOpenCL.so"})]
    read = manifest.apk_manifest(apps.axml(library))
    assert read == manifest.bundle_manifest(apps.proto_manifest(library))
    assert (read.min_sdk, read.target_sdk, read.extract_native_libs) == (29, 35, False)
    assert read.native_libraries == ("libOpenCL.so",)


@pytest.mark.parametrize(
    ("glob", "path", "fits"),
    [
        ("**.tflite", "assets/a/b.tflite", True),
        ("assets/*.tflite", "assets/b.tflite", True),
        ("assets/*.tflite", "assets/a/b.tflite", False),
        ("**/*.[tT][fF][lL]ite", "assets/b.TFLite", True),
        ("assets/{net,other}.tflite", "assets/other.tflite", True),
        ("assets/?.onnx", "assets/ab.onnx", False),
        ("assets/[!a-c].onnx", "assets/b.onnx", False),
        ("assets/[!a-c].onnx", "assets/d.onnx", True),
        ("**a" * 300, "a" * 1000, True),
        ("**a" * 300 + "b", "a" * 1000, False),
    ],
)
def test_globs_of_a_bundle(glob: str, path: str, fits: bool) -> None:
    assert matches(glob, path) is fits


@settings(deadline=1000)
@given(st.text("a*/[]{},?!\\-b", max_size=40), st.text("ab/-", max_size=30))
def test_any_glob_is_judged(glob: str, path: str) -> None:
    assert matches(glob, path) in (True, False)


@settings(deadline=1000)
@given(st.text("ab/*", max_size=12), st.text("ab/", max_size=12))
def test_stars_mean_what_a_regular_expression_says(glob: str, path: str) -> None:
    pattern = re.sub(r"\*\*|\*|.", lambda m: {"**": ".*", "*": "[^/]*"}.get(m[0], re.escape(m[0])), glob)
    assert matches(glob, path) == bool(re.fullmatch(pattern, path))
