"""What is done to an `.onnx` before it is quantized, each step kept only when the answers stay."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.exporters.onnx_preparation import STEPS, prepared
from pipeline.runtimes.runtime import open_model

SAMPLES = [{"x": np.random.default_rng(seed).standard_normal((1, 3, 6, 6)).astype(np.float32)} for seed in range(2)]


def convolution(folder: Path, *, opset: int, constants: bool) -> Path:
    """Convolution and batch normalization, with the weights as initializers or as Constant nodes."""
    random = np.random.default_rng(0)
    arrays = {
        "w": random.standard_normal((4, 3, 3, 3)),
        "gain": random.uniform(0.5, 2, 4),
        "shift": random.standard_normal(4),
        "mean": random.standard_normal(4),
        "variance": random.uniform(0.5, 2, 4),
    }
    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "gain", "shift", "mean", "variance"], ["y"]),
    ]
    if constants:
        nodes = [*(helper.make_node("Constant", [], [t.name], value=t) for t in tensors), *nodes]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 6, 6])],
        [] if constants else tensors,
    )
    path = folder / "raw.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


def answers(path: Path) -> list[np.ndarray[Any, Any]]:
    model = open_model("onnx", path)
    return [model.answer(sample)["y"] for sample in SAMPLES]


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("opset", [11, 17])
def test_what_quantizers_want(opset: int, constants: bool, tmp_path: Path) -> None:
    raw, output = convolution(tmp_path, opset=opset, constants=constants), tmp_path / "ready.onnx"
    before = answers(raw)
    notes = prepared(raw, output, SAMPLES)
    model = onnx.load(str(output))
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert {node.input[1] for node in model.graph.node} <= {value.name for value in model.graph.initializer}
    assert next(entry.version for entry in model.opset_import if not entry.domain) == 17
    assert all(np.abs(right - found).max() < 1e-5 for right, found in zip(before, answers(output), strict=True))
    assert not [note for note in notes if "left out" in note]
    assert any("nodes" in note for note in notes)


def test_a_step_that_breaks_the_model_is_left_out_with_a_note(tmp_path: Path) -> None:
    def forget(given: Path, made: Path) -> None:
        model = onnx.load(str(given))
        for value in model.graph.initializer:
            if value.name == "gain":
                value.CopyFrom(numpy_helper.from_array(np.ones(4, np.float32), "gain"))
        onnx.save(model, str(made))

    def stumble(given: Path, made: Path) -> None:
        raise RuntimeError("Incomplete symbolic shape inference")

    def rename(given: Path, made: Path) -> None:
        model = onnx.load(str(given))
        model.graph.node[-1].output[0] = model.graph.output[0].name = "z"
        onnx.save(model, str(made))

    def bloat(given: Path, made: Path) -> None:
        model = onnx.load(str(given))
        model.doc_string = "x" * 1_000_000
        onnx.save(model, str(made))

    broken = {"forgetting": forget, "stumbling": stumble, "renaming": rename, "bloating": bloat}
    raw, output = convolution(tmp_path, opset=17, constants=False), tmp_path / "ready.onnx"
    before = answers(raw)
    notes = prepared(raw, output, SAMPLES, {**broken, **STEPS})
    assert [note.split(":")[0] for note in notes[:4]] == [f"{name} left out" for name in broken]
    assert "changes the answer 'y'" in notes[0]
    assert "Incomplete symbolic" in notes[1]
    assert "inputs or outputs" in notes[2]
    assert "larger" in notes[3]
    assert all(np.abs(right - found).max() < 1e-5 for right, found in zip(before, answers(output), strict=True))
    assert len(onnx.load(str(output)).graph.node) == 1, "the steps after them were done"
