"""Models with dimensions that stay free: samples of different length within one set, the whole way from each source."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from projects import Project

DATA = """
import numpy as np

def _sounds(seed, count):
    random = np.random.default_rng(seed)
    for number in range(count):
        yield {"sound": random.normal(size=(20 + 7 * number, 8)).astype(np.float32)}

def calibrate():
    return _sounds(1, 4)

def test():
    return _sounds(2, 5)
"""
TORCH = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.wide, self.narrow = torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)

    def forward(self, sound):
        return {"labels": self.narrow(torch.relu(self.wide(sound)))}

def make():
    return Net()
"""


def ran(folder: Path, model: str, recipes: list[str], shape: tuple[int, ...] = (1, -1, 8)) -> dict[str, Any]:
    """Candidates by recipe."""
    (folder / "data.py").write_text(DATA)
    config = {
        "source": {"model": model, "inputs": {"sound": list(shape)}},
        "data": {"calibrate": "data.py:calibrate", "test": "data.py:test"},
        "recipes": recipes,
        "measure": {"warm": "40 ms"},
    }
    here = Project(folder, config)
    done = here.run()
    assert done.status == 0, done.err
    found = {one["recipe"]: one for one in here.report()["candidates"]}
    for one in found.values():
        if one["verdict"] != "refused":
            assert one["inputs"][0]["shape"] == list(shape)
            assert one["targets"]["local"]["answer"]["max_steps"] <= 3, one["recipe"]
    return found


def test_onnx_with_a_free_length(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(8, 16)), "v": random.normal(size=(16, 4))}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["sound", "w"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "v"], ["labels"]),
        ],
        "net",
        [helper.make_tensor_value_info("sound", TensorProto.FLOAT, ["batch", "length", 8])],
        [helper.make_tensor_value_info("labels", TensorProto.FLOAT, ["batch", "length", 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "net.onnx")
    found = ran(tmp_path, "net.onnx", ["onnx-float32", "onnx-float16", "onnx-dynamic-int8", "onnx-int8"])
    for name, least_db in (("float32", 90), ("float16", 50), ("dynamic-int8", 30), ("int8", 20)):
        assert found[f"onnx-{name}"]["fidelity"]["sqnr_db"] > least_db


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras, when it saves
def test_keras_with_a_free_length_and_the_tflite_that_it_gives(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the tensorflow extra is not installed", exc_type=ImportError)
    import keras

    keras.utils.set_random_seed(0)
    given = keras.Input((None, 8), name="sound")
    heard = keras.layers.Conv1D(16, 3, padding="same", activation="relu")(given)
    keras.Model(given, keras.layers.Conv1D(4, 3, padding="same", name="labels")(heard)).save(tmp_path / "net.keras")
    found = ran(tmp_path, "net.keras", ["litert-float32", "litert-int8", "onnx-float32"])
    assert found["litert-int8"]["fidelity"]["sqnr_db"] > 20
    assert found["onnx-float32"]["fidelity"]["sqnr_db"] > 90
    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "deploy-out" / found["litert-float32"]["path"]).rename(again / "net.tflite")
    quantized = ran(again, "net.tflite", ["litert-float32", "litert-int8"])["litert-int8"]
    assert quantized["fidelity"]["sqnr_db"] > 20


def test_pytorch_with_a_free_length_goes_to_onnx_and_says_why_nowhere_else(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the torch extra is not installed", exc_type=ImportError)
    (tmp_path / "net.py").write_text(TORCH)
    found = ran(tmp_path, "net.py:make", ["litert-float32", "torch-float32", "onnx-float32", "onnx-int8"])
    assert found["onnx-int8"]["fidelity"]["sqnr_db"] > 20
    for name, why in (("litert", "litert-torch writes fixed shapes only"), ("torch", "tracing makes sizes constants")):
        assert found[f"{name}-float32"]["verdict"] == "refused"
        reason = found[f"{name}-float32"]["reason"]
        assert "not available with free dimensions (sound [1, -1, 8]): " in reason and why in reason
