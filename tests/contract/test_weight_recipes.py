"""Recipes for models that are mostly weights, and the ladder that a candidate goes down when it breaks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from weight_models import TOKENS, dense_tflite, language_onnx, no_half_onnx, old_onnx, overflowing_onnx

from pipeline.errors import ConversionFailed
from pipeline.recipes.ladder import climb
from pipeline.recipes.mixing import mixed
from pipeline.recipes.recipe import Ingredients, Ranges, promise, recipe
from pipeline.runtimes.runtime import HostModel, open_model
from pipeline.search.ops import read_ops

# ai-edge-quantizer looks at every tensor.
pytestmark = pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")

Samples = list[dict[str, np.ndarray[Any, Any]]]


def floats(*shape: int) -> Samples:
    random = np.random.default_rng(1)
    return [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(4)]


def made(
    name: str, model: Path, samples: Samples, folder: Path, ranges: Ranges | None = None
) -> tuple[HostModel, tuple[str, ...], float, float]:
    """The candidate, its notes, its SQNR in dB against the float model, its size as a share."""
    output = folder / f"{name}.{recipe(name).format}"
    given = Ingredients(
        source=model, float_model=model, ranges=ranges or {}, scratch=folder, samples=lambda: iter(samples)
    )
    candidate, notes = climb(recipe(name), given, output)
    reference = open_model(recipe(name).format, model)
    pairs = [(reference.answer(inputs)["y"], candidate.answer(inputs)["y"]) for inputs in samples]
    error = sum(float(np.square(right - found).sum()) for right, found in pairs)
    power = sum(float(np.square(right).sum()) for right, _ in pairs)
    share = output.stat().st_size / model.stat().st_size
    return candidate, notes, 10 * np.log10(power / max(error, 1e-12)), share


@pytest.mark.parametrize("block", [32, 64, 128])
def test_litert_weights_in_blocks(block: int, tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    name = f"litert-weight-int4-b{block}"
    _, notes, sqnr_db, share = made(name, dense_tflite(tmp_path), floats(1, 128), tmp_path)
    assert not notes
    assert 15 < sqnr_db < 40
    assert share < 0.35  # of a model that is a tenth description
    graph = flatbuffer_utils.read_model(str(tmp_path / f"{name}.tflite")).subgraphs[0]
    [weights] = [tensor for tensor in graph.tensors if tensor.type == schema.TensorType.INT4]
    assert weights.quantization.details.blockSize == block


def test_uint8_ends_of_a_model_whose_weights_lie_behind_the_flatbuffer(tmp_path: Path) -> None:
    """ai-edge-quantizer puts them there from 256 KiB on; what changes the ends writes the flatbuffer alone."""
    ranges = {"x": (-4.0, 4.0), "y": (-40.0, 40.0)}
    model = dense_tflite(tmp_path, outputs=4096)
    made_uint8, _, sqnr_db, _ = made("litert-int8-io-uint8", model, floats(1, 128), tmp_path, ranges)
    assert {spec.dtype for spec in (*made_uint8.inputs, *made_uint8.outputs)} == {"uint8"}
    assert sqnr_db > 20


@pytest.mark.parametrize(("bits", "least_db"), [(8, 35.0), (4, 14.0)])
def test_onnx_weights_in_blocks(bits: int, least_db: float, tmp_path: Path) -> None:
    """Gemm is rewritten, embeddings are int4, and the opset is really raised: ReduceMean has its axes elsewhere now."""
    model = language_onnx(tmp_path)
    samples = [{"ids": np.random.default_rng(seed).integers(0, TOKENS, (1, 6))} for seed in range(4)]
    found = {}
    for block in (32, 128):
        name = f"onnx-weight-int{bits}-b{block}"
        _, notes, sqnr_db, share = made(name, model, samples, tmp_path)
        assert not notes
        assert sqnr_db > least_db
        found[block] = (sqnr_db, share)
        types = [node.op_type for node in onnx.load(str(tmp_path / f"{name}.onnx")).graph.node]
        assert types.count("MatMulNBits") == 2
        assert ("GatherBlockQuantized" in types) == (bits == 4)
    assert found[32][0] > found[128][0], "small blocks lose less"
    assert promise(f"onnx-weight-int{bits}-b32").size == (bits + 1) / 32


def test_weight_recipes_refuse_a_model_without_matrix_products(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="no matrix product with constant weights") as caught:
        made("onnx-weight-int8-b32", old_onnx(tmp_path), floats(1, 3, 8, 8), tmp_path)
    assert "onnx-int8" in caught.value.hint


def test_half_precision_that_overflows_is_kept_in_float32_there(tmp_path: Path) -> None:
    _, notes, sqnr_db, _ = made("onnx-float16", overflowing_onnx(tmp_path), floats(1, 16), tmp_path)
    assert sqnr_db > 40
    assert [note.split(":")[0] for note in notes] == ["square, root"]
    model = onnx.shape_inference.infer_shapes(onnx.load(str(tmp_path / "onnx-float16.onnx")))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    nodes = {node.name: node for node in model.graph.node}
    assert kinds[nodes["square"].output[0]] == onnx.TensorProto.FLOAT
    assert kinds[nodes["widen"].output[0]] == onnx.TensorProto.FLOAT16


def test_a_node_that_breaks_is_left_in_float(tmp_path: Path) -> None:
    _, notes, sqnr_db, _ = made("onnx-float16", no_half_onnx(tmp_path), floats(1, 16), tmp_path)
    assert sqnr_db > 40
    assert notes[0].endswith("distance is left in float")
    assert notes[-1] == "made as asked, distance in float"


def test_the_ladder_ends_at_one_scale_per_tensor(tmp_path: Path) -> None:
    ranges = {"x": (-4.0, 4.0), "y": (-4.0, 4.0)}
    _, notes, sqnr_db, _ = made("onnx-int8", old_onnx(tmp_path), floats(1, 3, 8, 8), tmp_path, ranges)
    assert sqnr_db > 20
    assert [note.split(":")[0] for note in notes] == [
        "as asked",
        "with unsigned weights",
        "made with one scale for each tensor of weights",
    ]


def test_the_ladder_says_what_it_tried_when_nothing_holds(tmp_path: Path) -> None:
    """A file that is no model breaks on every rung."""
    broken = old_onnx(tmp_path)
    model = onnx.load(str(broken))
    model.graph.node[0].op_type = "Konv"
    onnx.save(model, str(broken))
    samples = floats(1, 3, 8, 8)
    given = Ingredients(source=broken, float_model=broken, ranges={}, scratch=tmp_path, samples=lambda: iter(samples))
    with pytest.raises(ConversionFailed, match="none of 3 ways") as caught:
        climb(recipe("onnx-int8"), given, tmp_path / "out.onnx")
    assert all(said in caught.value.hint for said in ("as asked", "with unsigned weights", "with one scale"))


def onnx_weights(path: Path) -> Mapping[str, np.ndarray[Any, Any]]:
    graph = onnx.load(str(path)).graph
    arrays = {value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer}
    return {name: array for name, array in arrays.items() if array.dtype == np.int8 and array.ndim > 1}


def test_seven_bits_are_seven_bits(tmp_path: Path) -> None:
    model = onnx.version_converter.convert_version(onnx.load(str(old_onnx(tmp_path))), 17)
    onnx.save(model, str(tmp_path / "new.onnx"))
    ranges = {"x": (-4.0, 4.0), "y": (-4.0, 4.0)}
    for name, most in (("onnx-int8", 127), ("onnx-int8-w7", 64)):
        _, notes, _, _ = made(name, tmp_path / "new.onnx", floats(1, 3, 8, 8), tmp_path, ranges)
        assert not notes
        [weights] = onnx_weights(tmp_path / f"{name}.onnx").values()
        assert most - 1 <= np.abs(weights.astype(int)).max() <= most


def test_rules_of_a_mix_are_taken_in_their_order(tmp_path: Path) -> None:
    ops = read_ops("onnx", language_onnx(tmp_path))
    given = {op.type: op.name for op in ops}
    found = mixed(ops, {"Gemm": "float32", ".*:h:.*": "int16x8", "(Gemm|Relu).*": "int8"}, "float32", "onnx")
    assert found == {
        given["Gather"]: "float32",
        given["MatMul"]: "int16x8",
        given["Relu"]: "int8",
        given["ReduceMean"]: "float32",
        given["Gemm"]: "float32",
    }
    for rules, reason in (
        ({"Softmax": "int8"}, "fits none of the model's 5 ops"),
        ({"(": "int8"}, "no regular expression"),
        ({"Gemm": "float16"}, "float16 is not to be had"),
    ):
        with pytest.raises(ConversionFailed, match=reason):
            mixed(ops, rules, "int8", "onnx")  # type: ignore[arg-type]
