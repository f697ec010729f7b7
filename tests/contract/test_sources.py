"""Every kind of source keeps what the protocol promises: names, fixed shapes, the framework's own answers, one file."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from int8_models import int8_onnx_bundle, int8_tflite_bundle
from onnx import helper
from projects import classifier, onnx_model
from tiny_models import tflite_bundle

from pipeline.errors import InputError
from pipeline.exporters import EXPORTERS, FORMATS, QUANTIZED
from pipeline.exporters.detect import detect
from pipeline.exporters.source import bound_shapes, open_source
from pipeline.quality.outputs import OutputsReader
from pipeline.samples import DataSection
from pipeline.stages.export import float_job
from pipeline.worker import Worker
from targets.records import TensorSpec


@dataclass(frozen=True)
class Made:
    """A source model, the samples it takes (without batch axis), and what is known of it."""

    kind: str
    name: str
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    job: str = ""
    signature: str = "serving_default"
    dtype: str = "float32"  # of the inputs and outputs


SOURCES = [
    Made("onnx", "net.onnx", {"image": (3, 8, 8)}, {"scores": (1, 5)}),
    Made("keras", "net.keras", {"image": (8, 8, 3)}, {"scores": (1, 5)}, "keras_classifier"),
    Made("keras", "two.keras", {"left": (8,), "right": (6,)}, {"first": (1, 3), "second": (1, 2)}, "keras_two_inputs"),
    Made("keras", "row.keras", {"image": (8, 8, 3)}, {"scores": (1, 5)}, "keras_sequential"),
    Made("keras_h5", "old.h5", {"image": (8, 8, 3)}, {"scores": (1, 5)}, "keras_h5"),
    Made("keras_h5", "new.h5", {"given": (6,)}, {"answer": (1, 3)}, "keras3_h5"),
    Made("tflite", "float.tflite", {"x": (8,)}, {"y": (1, 8)}),
    Made("quantized_tflite", "int8.tflite", {"x": (64,)}, {"y": (1, 96)}),
    Made("quantized_onnx", "int8.onnx", {"x": (64,)}, {"y": (1, 96)}, dtype="int8"),
    Made("saved_model", "saved", {"given": (8,)}, {"answer": (1, 4)}, "saved_model", "double"),
]
# Sources that are files of a few hundred bytes made without a framework.
BUNDLES = {"tflite": tflite_bundle, "quantized_tflite": int8_tflite_bundle, "quantized_onnx": int8_onnx_bundle}


def test_every_kind_is_here() -> None:
    assert {made.kind for made in SOURCES} | {"pytorch"} == set(EXPORTERS) == set(FORMATS)  # see test_torch_sources.py


def make(worker: Worker, made: Made, folder: Path) -> Path:
    path = folder / made.name
    if made.job:
        worker.call(f"source_models:{made.job}", path=path)
    elif made.kind in BUNDLES:
        shutil.copyfile(BUNDLES[made.kind](folder / "bundle").model, path)
    else:
        path.write_bytes(classifier())
    for part, seed in (("calibrate", 1), ("test", 2)):
        random = np.random.default_rng(seed)
        arrays = {n: random.normal(size=(3, *shape)).astype(np.float32) for n, shape in made.inputs.items()}
        if made.dtype == "int8":
            arrays = {n: np.rint(40 * array).astype(np.int8) for n, array in arrays.items()}
        np.savez(folder / f"{part}.npz", **arrays)
    return path


def prepare(worker: Worker, made: Made, path: Path, **changes: Any) -> dict[str, Any]:
    (path.parent / "scratch").mkdir(exist_ok=True)
    data = DataSection(calibrate="calibrate.npz", test="test.npz")
    arguments = {
        "kind": made.kind,
        "model": path,
        "signature": made.signature,
        "shapes": {},
        "calibrate": data.spec("calibrate"),
        "test": data.spec("test"),
        "base": path.parent,
        "scratch": path.parent / "scratch",
    }
    found: dict[str, Any] = worker.call("pipeline.stages.export_jobs:prepare", **{**arguments, **changes})
    return found


@pytest.mark.parametrize("made", SOURCES, ids=lambda made: f"{made.kind}-{made.name}")
def test_a_source_is_bound_run_and_exported(worker: Worker, made: Made, tmp_path: Path) -> None:
    path = make(worker, made, tmp_path)
    assert detect(path) == made.kind
    prepared = prepare(worker, made, path)
    assert {spec.name: spec.shape for spec in prepared["inputs"]} == {
        name: (1, *shape) for name, shape in made.inputs.items()
    }
    assert {spec.name: spec.shape for spec in prepared["outputs"]} == made.outputs
    assert {spec.dtype for spec in (*prepared["inputs"], *prepared["outputs"])} == {made.dtype}
    assert prepared["tools"]
    reference = OutputsReader(tmp_path / "scratch" / "reference")
    for group, number in (("calibrate", 0), ("test", 0), ("test", 2)):
        answers = reference.read(group, number)
        assert {name: array.shape for name, array in answers.items()} == made.outputs
        assert any(np.abs(array).max() > 0 for array in answers.values())
    data = DataSection(calibrate="calibrate.npz", test="test.npz")
    for format in FORMATS[made.kind]:
        scratch = tmp_path / format
        scratch.mkdir()
        job, more = float_job(format, made.kind, 17)
        worker.call(f"pipeline.stages.{job}", source=tmp_path / "scratch" / "model", scratch=scratch, **more)
        if made.kind in QUANTIZED:
            assert (scratch / "model").read_bytes() == path.read_bytes()
        hop = worker.call(
            "pipeline.stages.export_jobs:compare_hop",
            format=format,
            model=scratch / "model",
            reference=tmp_path / "scratch" / "reference",
            calibrate=data.spec("calibrate"),
            inputs=prepared["inputs"],
            base=tmp_path,
        )
        assert hop["sqnr_db"] > 100, format  # rounding of float32, no more
        assert {spec.name for spec in hop["inputs"]} == set(made.inputs)
        assert {spec.name for spec in hop["outputs"]} == set(made.outputs)


def test_an_export_that_answers_differently_is_refused(worker: Worker, tmp_path: Path) -> None:
    made = SOURCES[0]
    prepared = prepare(worker, made, make(worker, made, tmp_path))
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(classifier(weight=3.0))
    with pytest.raises(
        Exception, match=r"the onnx export answers differently from the source: .* on calibrate.npz\[0\]"
    ):
        worker.call(
            "pipeline.stages.export_jobs:compare_hop",
            format="onnx",
            model=wrong,
            reference=tmp_path / "scratch" / "reference",
            calibrate=DataSection(calibrate="calibrate.npz", test="test.npz").spec("calibrate"),
            inputs=tuple(prepared["inputs"]),
            base=tmp_path,
        )


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ("keras_with_nan", "weight 'dense/kernel' holds 1 of 8 values that are NaN or infinite"),
        ("keras_with_lambda", "cannot load it"),
    ],
)
def test_a_keras_file_that_cannot_be_used(worker: Worker, tmp_path: Path, job: str, said: str) -> None:
    made = Made("keras", "bad.keras", {"x": (4,)}, {}, job)
    path = make(worker, made, tmp_path)
    with pytest.raises(InputError) as caught:
        prepare(worker, made, path)
    assert caught.value.message.startswith(f"{path}: ")
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_signature_the_saved_model_has_not(worker: Worker, tmp_path: Path) -> None:
    made = SOURCES[-1]
    path = make(worker, made, tmp_path)
    with pytest.raises(InputError, match="has no signature 'predict'; it has: plain, double"):
        prepare(worker, made, path, signature="predict")


FACTORY = """
import tf_keras

def net(name="scores", flat=True):
    image = tf_keras.Input((8, 8, 3), name="image")
    deep = tf_keras.layers.Conv2D(4, 3, activation="relu", name="first")(image)
    return tf_keras.Model(image, tf_keras.layers.Dense(5, name=name)(tf_keras.layers.Flatten()(deep)))

def renamed():
    return net("answers")

def other():
    return 3
"""


def test_weights_alone_need_the_code_that_builds_their_model(worker: Worker, tmp_path: Path) -> None:
    whole = Made("keras_h5", "whole.h5", {"image": (8, 8, 3)}, {"scores": (1, 5)}, "keras_h5")
    weights = Made("keras_h5", "weights.h5", {"image": (8, 8, 3)}, {"scores": (1, 5)}, "keras_h5")
    (tmp_path / "net.py").write_text(FACTORY)
    expected = prepare(worker, whole, make(worker, whole, tmp_path))
    answers = OutputsReader(tmp_path / "scratch" / "reference").read("test", 1)
    path = make(worker, weights, tmp_path)
    with pytest.raises(InputError, match="holds weights without a model") as caught:
        prepare(worker, weights, path)
    assert "source: {factory: file.py:function}" in caught.value.hint
    assert prepare(worker, weights, path, factory="net.py:net")["inputs"] == expected["inputs"]
    again = OutputsReader(tmp_path / "scratch" / "reference").read("test", 1)
    assert np.array_equal(answers["scores"], again["scores"])
    # A layer that the file has no weights for would keep its random ones.
    with pytest.raises(InputError, match=r"has no weights for answers of net.py:renamed; it has first, scores"):
        prepare(worker, weights, path, factory="net.py:renamed")
    with pytest.raises(InputError, match=r"net.py:other returned int"):
        prepare(worker, weights, path, factory="net.py:other")
    plain = make(worker, SOURCES[0], tmp_path)
    with pytest.raises(InputError, match=r"source.factory builds a model for a file of weights"):
        prepare(worker, SOURCES[0], plain, factory="net.py:net")


def test_an_h5_file_that_is_cut_off(worker: Worker, tmp_path: Path) -> None:
    made = Made("keras_h5", "old.h5", {"image": (8, 8, 3)}, {}, "keras_h5")
    path = make(worker, made, tmp_path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"old.h5: the HDF5 file is cut off or damaged"):
        prepare(worker, made, path)


@pytest.mark.parametrize("left", [100, 250, 400])
def test_a_tflite_file_that_is_cut_off(worker: Worker, tmp_path: Path, left: int) -> None:
    made = Made("tflite", "net.tflite", {"x": (8,)}, {})
    path = make(worker, made, tmp_path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InputError, match=r"net.tflite: LiteRT does not load it: "):
        prepare(worker, made, path)


def onnx_of(data: bytes, folder: Path) -> Any:
    (folder / "net.onnx").write_bytes(data)
    return open_source("onnx", folder / "net.onnx", signature="", scratch=folder)


def test_onnx_without_its_external_data(tmp_path: Path) -> None:
    import onnx

    model = onnx.load_model_from_string(classifier())
    onnx.save(model, str(tmp_path / "net.onnx"), save_as_external_data=True, location="net.data", size_threshold=0)
    assert open_source("onnx", tmp_path / "net.onnx", signature="", scratch=tmp_path).inputs[0].shape == (-1, 3, 8, 8)
    (tmp_path / "net.data").unlink()
    with pytest.raises(InputError) as caught:
        open_source("onnx", tmp_path / "net.onnx", signature="", scratch=tmp_path)
    assert "its external data cannot be read" in caught.value.message
    assert "second file" in caught.value.hint


def test_one_onnx_file_of_more_than_a_protocol_buffer_can_hold(tmp_path: Path) -> None:
    """Refused before anything is loaded: by its size, of which a file with a hole has all and the disk none."""
    (tmp_path / "net.onnx").write_bytes(classifier())
    with (tmp_path / "net.onnx").open("r+b") as file:
        file.truncate(2**31)
    with pytest.raises(InputError, match=r"net.onnx: 2.15 GB in one .onnx file, which holds 2.15 GB at most") as caught:
        open_source("onnx", tmp_path / "net.onnx", signature="", scratch=tmp_path)
    assert "save_as_external_data" in caught.value.hint


def test_onnx_whose_weights_are_outside_of_its_folder(tmp_path: Path) -> None:
    import onnx

    model = onnx.load_model_from_string(classifier())
    onnx.save(model, str(tmp_path / "net.onnx"), save_as_external_data=True, location="net.data", size_threshold=0)
    for tensor in (model := onnx.load(str(tmp_path / "net.onnx"), load_external_data=False)).graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "../net.data"
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"outside of the model's folder"):
        open_source("onnx", tmp_path / "net.onnx", signature="", scratch=tmp_path)


@pytest.mark.parametrize("left", range(20, len(classifier()) - 1, 37))
def test_onnx_cut_off_anywhere_is_refused_by_name(tmp_path: Path, left: int) -> None:
    with pytest.raises(InputError) as caught:
        onnx_of(classifier()[:left], tmp_path)
    assert caught.value.message.startswith(f"{tmp_path / 'net.onnx'}: ")
    assert "onnxruntime_src" not in caught.value.message


def test_onnx_with_an_op_nobody_knows(tmp_path: Path) -> None:
    import onnx

    model = onnx.load_model_from_string(classifier())
    model.graph.node[1].op_type = "Rleu"
    with pytest.raises(InputError, match="Rleu") as caught:
        onnx_of(model.SerializeToString(), tmp_path)
    assert "does not load it: " in caught.value.message
    assert "ONNXRuntimeError" not in caught.value.message


def test_onnx_with_text_inputs(tmp_path: Path) -> None:
    import onnx

    given = helper.make_tensor_value_info("text", onnx.TensorProto.STRING, [1])
    answer = helper.make_tensor_value_info("answer", onnx.TensorProto.STRING, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["text"], ["answer"])], "g", [given], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with pytest.raises(InputError, match="'text' is text; only numeric tensors are supported"):
        onnx_of(model.SerializeToString(), tmp_path)


def test_onnx_shapes_that_depend_on_the_batch_are_inferred_again(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["image"], ["flat"])]
    source = onnx_of(onnx_model(nodes, {"image": ["n", 2, "h"]}, {"flat": ["n", "m"]}, {}), tmp_path)
    source.fix_shapes({"image": (1, 2, 5)})
    assert source.outputs == (TensorSpec(name="flat", shape=(1, 10), dtype="float32"),)


@pytest.mark.parametrize(
    ("asked", "sample", "expected"),
    [
        ({}, (1, 3, 8, 8), (1, 3, 8, 8)),
        ({"image": (1, 3, 4, 4)}, (1, 3, 8, 8), (1, 3, 4, 4)),
        ({"image": (1, 3)}, (1, 3, 8, 8), "has shape [-1, 3, -1, -1], which [1, 3] does not fit"),
        ({"image": (1, 4, 8, 8)}, (1, 3, 8, 8), "does not fit"),
        ({"picture": (1, 3, 8, 8)}, (1, 3, 8, 8), "source.inputs names 'picture', the model has image"),
        ({"image": (-1, 3, 8, 8)}, (1, 3, 8, 8), (-1, 3, 8, 8)),
        ({"image": (1, -1, 8, 8)}, (1, 3, 8, 8), "does not fit"),
    ],
)
def test_binding_shapes(asked: dict[str, tuple[int, ...]], sample: tuple[int, ...], expected: Any) -> None:
    inputs = [TensorSpec(name="image", shape=(-1, 3, -1, -1), dtype="float32")]
    first = {"image": np.zeros(sample, np.float32)}
    if isinstance(expected, tuple):
        assert bound_shapes("m", inputs, asked, first) == {"image": expected}
        return
    with pytest.raises(InputError) as caught:
        bound_shapes("m", inputs, asked, first)
    assert expected in caught.value.message
