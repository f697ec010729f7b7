"""Every recipe turns the small model into a file that loads, runs and answers like it, and tells truly what it did."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from int8_models import branching_onnx_model
from onnx import numpy_helper

from pipeline.errors import ConversionFailed
from pipeline.finetune.settings import Settings
from pipeline.quality.fidelity import Fidelity
from pipeline.quality.outputs import OutputsReader
from pipeline.recipes import RECIPES
from pipeline.recipes.recipe import WEIGHT_BITS, Ingredients, recipe
from pipeline.runtimes.runtime import open_model
from pipeline.samples import DataSection, open_samples
from pipeline.worker import Worker

# Recipe -> least SQNR in dB against the float model, data type of inputs and outputs, whether anything is integer.
EXPECTED: dict[str, tuple[float, str, bool]] = {
    "litert-float32": (100, "float32", False),
    "litert-float16": (40, "float32", False),
    "litert-dynamic-int8": (15, "float32", False),  # the small model has no op with 1024 weights
    "litert-int8": (15, "float32", True),
    "litert-int8-io-int8": (15, "int8", True),
    "litert-int8-io-uint8": (15, "uint8", True),
    "litert-int8-w4": (10, "float32", True),
    "litert-qat-int8": (15, "float32", True),
    "litert-qat-int8-w4": (10, "float32", True),
    "litert-int16x8": (25, "float32", True),
    "onnx-float32": (100, "float32", False),
    "onnx-dynamic-int8": (15, "float32", True),
    "onnx-int8": (15, "float32", True),
    "onnx-int8-s8s8": (15, "float32", True),
    "onnx-qat-int8": (15, "float32", True),
}


@dataclass(frozen=True)
class Exported:
    folder: Path
    prepared: dict[str, Any]

    def model(self, format: str, branch: str = "") -> Path:
        return self.folder / branch / format / "model"

    def ranges(self, format: str, branch: str = "") -> Path:
        return self.folder / branch / format / "ranges.json"


DATA = DataSection(calibrate="calibrate.npz", test="test.npz")


@pytest.fixture(scope="session")
def exported(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The small Keras model, exported to both formats and calibrated."""
    folder = tmp_path_factory.mktemp("exported")
    worker.call("source_models:keras_classifier", path=folder / "net.keras")
    for part, seed in (("calibrate", 1), ("test", 2)):
        random = np.random.default_rng(seed)
        np.savez(folder / f"{part}.npz", image=random.normal(size=(6, 8, 8, 3)).astype(np.float32))
    common = {"calibrate": DATA.spec("calibrate"), "base": folder}
    prepared = worker.call(
        "pipeline.stages.export_jobs:prepare",
        kind="keras",
        model=folder / "net.keras",
        signature="",
        shapes={},
        test=DATA.spec("test"),
        scratch=folder,
        **common,
    )
    _to_formats(worker, folder, ("tflite", "onnx"), inputs=prepared["inputs"], **common)
    for start, bits in WEIGHT_BITS.items():
        branch = folder / start
        branch.mkdir()
        worker.call(
            "pipeline.stages.finetune_jobs:finetune",
            model=folder / "net.keras",
            data=DATA.spec("calibrate"),
            inputs=prepared["inputs"],
            outputs=prepared["outputs"],
            weight_bits=bits,
            settings=Settings(epochs=2, patience=2, batch_size=4, learning_rate=1e-3, held_out=0.3, seed=0),
            loss="",
            base=folder,
            scratch=branch,
            checkpoint=branch / "checkpoint",
        )
        formats = ("tflite", "onnx") if bits == 8 else ("tflite",)
        _to_formats(worker, branch, formats, inputs=prepared["inputs"], learned=branch / "learned", **common)
    return Exported(folder, prepared)


def _to_formats(worker: Worker, folder: Path, formats: tuple[str, ...], **common: Any) -> None:
    for format in formats:
        scratch = folder / format
        scratch.mkdir()
        more = {"opset": 17, "archived": True} if format == "onnx" else {}
        worker.call(f"pipeline.stages.export_jobs:to_{format}", source=folder / "model", scratch=scratch, **more)
        made = worker.call(
            "pipeline.stages.candidate_jobs:calibrate",
            format=format,
            model=scratch / "model",
            output=scratch / "ranges.json",
            **common,
        )
        assert not made["notes"], "every learned range has found its tensor"


def quantize(worker: Worker, exported: Exported, name: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    chosen = recipe(name)
    output = folder / f"candidate.{chosen.format}"
    branch = chosen.start if chosen.start in WEIGHT_BITS else ""
    ranged = branch or chosen.start == "ranges"
    made = worker.call(
        "pipeline.stages.candidate_jobs:quantize",
        name=name,
        source=exported.folder / branch / "model",
        float_model=exported.model(chosen.format, branch),
        ranges=exported.ranges(chosen.format, branch) if ranged else None,
        output=output,
        scratch=folder,
    )
    return output, made


def test_every_recipe_is_here() -> None:
    built_in = {name for name, place in RECIPES.items() if place.startswith("pipeline.")}
    assert set(EXPECTED) == built_in


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recipe(worker: Worker, exported: Exported, name: str, tmp_path: Path) -> None:
    least_db, dtype, integer = EXPECTED[name]
    output, made = quantize(worker, exported, name, tmp_path)
    chosen = recipe(name)
    assert chosen.summary
    # It loads and answers as the source does, by the names the source has.
    model = open_model(chosen.format, output)
    assert {spec.name: (spec.shape, spec.dtype) for spec in model.inputs} == {"image": ((1, 8, 8, 3), dtype)}
    assert {spec.name: (spec.shape, spec.dtype) for spec in model.outputs} == {"scores": ((1, 5), dtype)}
    assert (model.inputs, model.outputs) == (made["inputs"], made["outputs"])
    if dtype != "float32":
        assert all(spec.scale > 0 for spec in (*model.inputs, *model.outputs))
    fidelity, reference = Fidelity(), OutputsReader(exported.folder / "reference")
    for number, sample in enumerate(open_samples(DATA.spec("test"), exported.prepared["inputs"], exported.folder)):
        fidelity.update(model.answer(sample.inputs), reference.read("test", number))
    assert fidelity.result()["sqnr_db"] >= least_db
    # What it says of its ops adds up, and every op left in float has a reason.
    quantized = sum(made["ops_quantized"].values())
    left = sum(ops.count for ops in made["ops_left_float"])
    assert quantized + left <= made["ops_total"]
    assert made["ops_total"] >= 4
    assert bool(quantized) == integer
    assert all(ops.reason for ops in made["ops_left_float"])


def tflite_weight_scales(path: Path) -> dict[str, tuple[int, int]]:
    """Op -> bits and number of scales of its integer weights."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    bits = {schema.TensorType.INT8: 8, schema.TensorType.INT4: 4}
    found = {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            name = names[max(code.builtinCode, code.deprecatedBuiltinCode)]
            if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
                weights = graph.tensors[operator.inputs[1]]
                assert not np.any(weights.quantization.zeroPoint)
                found[name] = (bits[weights.type], len(weights.quantization.scale))
    return found


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith(("litert-int", "litert-qat"))])
def test_litert_weights_are_per_channel(worker: Worker, exported: Exported, name: str, tmp_path: Path) -> None:
    output, _ = quantize(worker, exported, name, tmp_path)
    bits = 4 if name.endswith("w4") else 8  # LiteRT has no int4 form of depthwise convolutions
    assert tflite_weight_scales(output) == {
        "CONV_2D": (bits, 8),
        "DEPTHWISE_CONV_2D": (8, 8),
        "FULLY_CONNECTED": (bits, 5),
    }


@pytest.mark.parametrize("name", ["onnx-int8", "onnx-int8-s8s8", "onnx-qat-int8"])
def test_onnx_weights_are_per_channel(worker: Worker, exported: Exported, name: str, tmp_path: Path) -> None:
    output, _ = quantize(worker, exported, name, tmp_path)
    graph = onnx.load(str(output)).graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    weights = {}
    activations = set()
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            array, scale = constants[node.input[0]], constants[node.input[1]]
            if array.ndim > 1:
                assert array.dtype == np.int8
                weights[array.shape] = scale.size
        elif node.op_type == "QuantizeLinear":
            activations.add(constants[node.input[2]].dtype)
    assert weights
    assert sorted(weights.values()) == [5, 8, 8]
    assert activations == {np.dtype(np.int8 if name.endswith("s8s8") else np.uint8)}


def test_onnx_int8_stays_integer_beside_a_shortcut(tmp_path: Path) -> None:
    """onnxruntime fuses when it loads; a convolution that it leaves in float here it runs in integers on ARM."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3  # it warns that such a file fits this machine alone
    onnxruntime.InferenceSession(str(branching_onnx_model(tmp_path)), options, providers=["CPUExecutionProvider"])
    fused = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert fused.count("QLinearConv") == 4
    assert "Conv" not in fused


def test_ranges_decide_the_result(worker: Worker, exported: Exported, tmp_path: Path) -> None:
    """A static recipe uses what calibration saw: with ranges a hundred times too wide its answers are rubbish."""
    chosen = recipe("onnx-int8")
    import json

    ranges = {name: tuple(ends) for name, ends in json.loads(exported.ranges("onnx").read_text()).items()}
    assert len(ranges) > 5
    wide = {name: (100 * low, 100 * high) for name, (low, high) in ranges.items()}
    worst = []
    for number, observed in enumerate((ranges, wide)):
        output = tmp_path / f"{number}.onnx"
        chosen.quantize(
            Ingredients(source=tmp_path, float_model=exported.model("onnx"), ranges=observed, scratch=tmp_path), output
        )
        fidelity, reference = Fidelity(), OutputsReader(exported.folder / "reference")
        model = open_model("onnx", output)
        for index, sample in enumerate(open_samples(DATA.spec("test"), exported.prepared["inputs"], exported.folder)):
            fidelity.update(model.answer(sample.inputs), reference.read("test", index))
        worst.append(fidelity.result()["sqnr_db"])
    assert worst[1] < worst[0] - 15


def test_an_interface_that_cannot_be_integer_is_refused_with_a_reason(
    worker: Worker, exported: Exported, tmp_path: Path
) -> None:
    """A float model has no QUANTIZE at its ends that could be changed."""
    from pipeline.recipes.litert_static import _check_interface, _take_and_give_uint8

    path = tmp_path / "float.tflite"
    path.write_bytes(exported.model("tflite").read_bytes())
    _check_interface(path, "float32")
    _take_and_give_uint8(path, tmp_path)
    with pytest.raises(ConversionFailed, match="cannot be made uint8") as caught:
        _check_interface(path, "uint8")
    assert "litert-int8" in caught.value.hint
