"""Every recipe turns the small model into a file that loads, runs and answers like it, and tells truly what it did."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from exported_model import DATA, Exported
from int8_models import branching_onnx_model
from onnx import numpy_helper

from pipeline.errors import ConversionFailed
from pipeline.quality.fidelity import Fidelity
from pipeline.quality.outputs import OutputsReader
from pipeline.recipes import RECIPES
from pipeline.recipes.grammar import decoded
from pipeline.recipes.recipe import WEIGHT_BITS, Ingredients, is_equalized, recipe
from pipeline.records import Format, Precision, Repair
from pipeline.runtimes.runtime import open_model
from pipeline.samples import open_samples
from pipeline.search.ops import int8_share, read_ops
from pipeline.worker import Worker

# Recipe -> least SQNR in dB against the float model, data type of inputs and outputs, whether anything is integer.
EXPECTED: dict[str, tuple[float, str, bool]] = {
    "litert-as-is": (100, "float32", False),
    "litert-float32": (100, "float32", False),
    "litert-float16": (40, "float32", False),
    "litert-dynamic-int8": (15, "float32", False),  # the small model has no op with 1024 weights
    "litert-dynamic-int8-all": (15, "float32", True),
    "litert-weight-int8": (25, "float32", False),  # stored in integers, computed in float
    "litert-weight-int4": (10, "float32", False),
    "litert-mixed": (15, "float32", True),
    "litert-int8": (15, "float32", True),
    "litert-int8-io-int8": (15, "int8", True),
    "litert-int8-io-uint8": (15, "uint8", True),
    "litert-int8-w4": (10, "float32", True),
    "litert-qat-int8": (15, "float32", True),
    "litert-qat-int8-w4": (10, "float32", True),
    "litert-int16x8": (25, "float32", True),
    "onnx-as-is": (100, "float32", False),
    "onnx-float32": (100, "float32", False),
    "onnx-float16": (40, "float32", False),
    "onnx-dynamic-int8": (15, "float32", True),
    "onnx-dynamic-int8-u8s8": (15, "float32", True),
    "onnx-weight-int8-b32": (40, "float32", True),
    "onnx-weight-int8-b64": (40, "float32", True),
    "onnx-weight-int8-b128": (40, "float32", True),
    "onnx-weight-int4-b32": (15, "float32", True),
    "onnx-weight-int4-b64": (15, "float32", True),
    "onnx-weight-int4-b128": (15, "float32", True),
    "onnx-int8-w7": (15, "float32", True),
    "onnx-int16x8": (25, "float32", True),
    "onnx-mixed": (15, "float32", True),
    "onnx-int8": (15, "float32", True),
    "onnx-int8-s8s8": (15, "float32", True),
    "litert-int8-cle": (15, "float32", True),
    "litert-int8-cle-bias": (15, "float32", True),
    "litert-int8-bias": (15, "float32", True),
    "litert-int8-octav": (15, "float32", True),
    "litert-int8-mse": (15, "float32", True),
    "litert-auto": (15, "float32", True),
    "onnx-int8-cle": (15, "float32", True),
    "onnx-int8-cle-bias": (15, "float32", True),
    "onnx-int8-bias": (15, "float32", True),
    "onnx-int8-gptq": (15, "float32", True),
    "onnx-auto": (15, "float32", True),
    "onnx-qat-int8": (15, "float32", True),
}
# Recipes that the small model is refused by: its one dense layer has 8 inputs.
REFUSED = {f"litert-weight-int4-b{block}": f"multiples of {block}" for block in (32, 64, 128)}


def half(exported: Exported, format: Format) -> dict[str, Precision]:
    """The first half of the ops in int8, the others in float32: what a search may give."""
    names = [op.name for op in read_ops(format, exported.model(format))]
    return {name: "int8" if place < len(names) / 2 else "float32" for place, name in enumerate(names)}


def quantize(
    worker: Worker,
    exported: Exported,
    name: str,
    folder: Path,
    precisions: Mapping[str, Precision] | None = None,
    repairs: tuple[Repair, ...] = (),
) -> tuple[Path, dict[str, Any]]:
    chosen = recipe(name)
    variant = "-cle" if is_equalized(name) else ""
    if precisions is None:
        precisions = half(exported, chosen.format) if chosen.start == "search" else {}
    output = folder / f"candidate.{chosen.format}"
    branch = chosen.start if chosen.start in WEIGHT_BITS else ""
    ranged = branch or chosen.start in ("ranges", "search", "mixed")
    made = worker.call(
        "pipeline.stages.candidate_jobs:quantize",
        name=name,
        source=exported.folder / branch / "model",
        float_model=exported.model(chosen.format, variant, branch),
        ranges=exported.ranges(chosen.format, variant, branch) if ranged else None,
        calibrate=DATA.spec("calibrate"),
        inputs=exported.prepared["inputs"],
        base=exported.folder,
        precisions=precisions,
        repairs=repairs,
        rules={next(iter(half(exported, chosen.format))): "float32"},
        output=output,
        scratch=folder,
    )
    return output, made


def test_every_recipe_is_here() -> None:
    built_in = {name for name, place in RECIPES.items() if place.startswith("pipeline.")}
    # Those of PyTorch are in test_torch_recipes.py, and those that take bytes in test_pixels.py.
    built_in = {name for name in built_in if not name.endswith("-pixels")}
    assert set(EXPECTED) | set(REFUSED) == {name for name in built_in if recipe(name).format != "pt"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_name_decodes(name: str) -> None:
    parts = decoded(name)
    assert "-".join(part for part, _ in parts) == name
    assert parts[0][0] == {"tflite": "litert", "onnx": "onnx", "pt": "torch"}[recipe(name).format]
    assert all(meaning for _, meaning in parts)
    for unknown in (f"{name}-turbo", f"caffe{name}", "litert-int12"):
        with pytest.raises(ValueError, match=r"no (format|precision|option); there are "):
            decoded(unknown)


@pytest.mark.parametrize("name", REFUSED)
def test_a_recipe_that_does_not_suit_says_why(worker: Worker, exported: Exported, name: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match=REFUSED[name]) as caught:
        quantize(worker, exported, name, tmp_path)
    assert "litert-weight-int8" in caught.value.hint


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


def sqnr_db(exported: Exported, format: str, path: Path) -> float:
    fidelity, reference, model = Fidelity(), OutputsReader(exported.folder / "reference"), open_model(format, path)
    for number, sample in enumerate(open_samples(DATA.spec("test"), exported.prepared["inputs"], exported.folder)):
        fidelity.update(model.answer(sample.inputs), reference.read("test", number))
    return fidelity.result()["sqnr_db"]


@pytest.mark.parametrize("name", ["litert-auto", "onnx-auto"])
def test_a_mix_is_what_it_says_op_by_op(worker: Worker, exported: Exported, name: str, tmp_path: Path) -> None:
    format = recipe(name).format
    ops = read_ops(format, exported.model(format))
    assert sum(op.macs for op in ops) == 8 * 8 * 8 * 27 + 8 * 8 * 8 * 9 + 8 * 5
    found = {}
    for precision in ("float32", "int16x8", "int8"):
        precisions: dict[str, Precision] = dict.fromkeys((op.name for op in ops), precision)  # type: ignore[arg-type]
        output, _ = quantize(worker, exported, name, tmp_path, precisions)
        found[precision] = (sqnr_db(exported, format, output), int8_share(read_ops(format, output)))
    assert found["float32"][0] > 100 and found["float32"][1] == 0
    assert found["int16x8"][0] > found["int8"][0] + 1 and found["int16x8"][1] == 0
    assert found["int8"][1] == 1
    # All int8 is the int8 recipe itself.
    plain, _ = quantize(worker, exported, name.replace("auto", "int8"), tmp_path)
    assert sqnr_db(exported, format, plain) == pytest.approx(found["int8"][0])
    # The heaviest op alone in int8, between float neighbours.
    heaviest = max(ops, key=lambda op: op.macs)
    one: dict[str, Precision] = {op.name: "int8" if op == heaviest else "float32" for op in ops}
    output, made = quantize(worker, exported, name, tmp_path, one)
    assert made["ops_quantized"] == {heaviest.type: 1}
    assert found["int8"][0] < sqnr_db(exported, format, output) < 100
    assert int8_share(read_ops(format, output)) == pytest.approx(heaviest.macs / sum(op.macs for op in ops))


def test_float16_and_int4_weights_are_smaller(worker: Worker, exported: Exported, tmp_path: Path) -> None:
    names = [op.name for op in read_ops("tflite", exported.model("tflite"))]
    sizes = {}
    for precision in ("float32", "float16", "int8x4"):
        precisions: dict[str, Precision] = dict.fromkeys(names, precision)  # type: ignore[arg-type]
        output, _ = quantize(worker, exported, "litert-auto", tmp_path, precisions)
        weights = open_model("tflite", output)
        assert weights.outputs
        sizes[precision] = sqnr_db(exported, "tflite", output)
    assert sizes["float32"] > sizes["float16"] > 40 > sizes["int8x4"] > 5


def test_bias_correction_moves_the_mean_to_where_it_was(worker: Worker, exported: Exported, tmp_path: Path) -> None:
    """Over the calibration samples the mean of the outputs is nearer to float's; with 4-bit weights, where it shows.

    Of the last layer: behind a ReLU its inputs have a mean, which the random pictures have not.
    """
    samples = list(open_samples(DATA.spec("calibrate"), exported.prepared["inputs"], exported.folder))
    ops = read_ops("tflite", exported.model("tflite"))
    coarse: dict[str, Precision] = {op.name: "int8x4" if op.type == "FULLY_CONNECTED" else "float32" for op in ops}
    paths = {"float": exported.model("tflite")}
    variants: dict[str, tuple[Repair, ...]] = {"plain": (), "bias": ("bias",)}
    for name, repairs in variants.items():
        output, _ = quantize(worker, exported, "litert-auto", tmp_path, coarse, repairs)
        paths[name] = output.rename(tmp_path / f"{name}.tflite")
    means = {}
    for name, path in paths.items():
        model = open_model("tflite", path)
        means[name] = np.mean([model.answer(sample.inputs)["scores"] for sample in samples], axis=0)
    off = {name: float(np.abs(mean - means["float"]).mean()) for name, mean in means.items()}
    assert off["bias"] < off["plain"] / 2
