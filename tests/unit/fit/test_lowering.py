"""Models that genuine old runtimes refuse or get wrong, and what is made of them there after lowering."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dense_models
import numpy as np
import onnx
import pytest
from device_facts import facts_of
from old_runtimes import VERSIONS, RefusedThere, run_there
from onnx import TensorProto, helper, numpy_helper

from pipeline.fit.fitter import Fitter
from pipeline.fit.records import Fit
from pipeline.runtimes.runtime import open_model
from pipeline.store import Store
from pipeline.worker import Worker
from targets.records import Facts

# Dynamic quantization rounds the activations on the device: two steps of 8 bits of the answers' range.
_TOLERATED_SHARE = 2 / 255


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker() as worker:
        yield worker


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state")


def old_facts(runtime: str) -> Facts:
    return facts_of(runtimes={runtime: VERSIONS[runtime]}, numpy="1.26.4")


def lowered_file(store: Store, fit: Fit, path: Path) -> Path:
    assert fit.lowered, fit.text
    path.write_bytes(store.path(fit.lowered.blob).read_bytes())
    return path


def distance(answered: dict[str, Any], expected: dict[str, Any]) -> float:
    """As a share of the range of what was expected."""
    return max(float(np.abs(answered[name] - array).max() / np.ptp(array)) for name, array in expected.items())


# The file, and what the old runtime makes of it as it is.
_DENSE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "int8, as TensorFlow writes it": (lambda path: dense_models.stamped(path, 12), "refused"),
    "int8, without versions": (lambda path: dense_models.quantized(path, "dynamic_wi8_afp32"), "wrong"),
    # XNNPACK's of x86 has these; the release's own kernels do not promise it.
    "int4": (lambda path: dense_models.quantized(path, "dynamic_wi4_afp32"), "perhaps"),
    "int4, only stored": (lambda path: dense_models.quantized(path, "weight_only_wi4_afp32"), "refused"),
    "int2, only stored": (lambda path: dense_models.quantized(path, "dynamic_wi2c_hr_afp32"), "refused"),
}


@pytest.mark.parametrize("kind", _DENSE)
def test_dense_layers_that_tflite_runtime_cannot(kind: str, worker: Worker, store: Store, tmp_path: Path) -> None:
    make, without = _DENSE[kind]
    model = make(tmp_path / "net.tflite")
    expected = open_model("tflite", model).invoke(dense_models.sample())
    if without == "refused":
        with pytest.raises(RefusedThere):
            run_there("tflite-runtime", model, dense_models.sample())
    elif without == "wrong":
        assert distance(run_there("tflite-runtime", model, dense_models.sample()), expected) > 5 * _TOLERATED_SHARE

    fit = Fitter(worker, store, store.workspace).fit(model, old_facts("tflite-runtime"))

    assert fit.answer == "lowering", fit.text
    lowered = lowered_file(store, fit, tmp_path / "lowered.tflite")
    assert distance(run_there("tflite-runtime", lowered, dense_models.sample()), expected) <= _TOLERATED_SHARE


def test_float_dense_layers_need_no_lowering(worker: Worker, store: Store, tmp_path: Path) -> None:
    model = dense_models.float_model(tmp_path / "net.tflite")
    fit = Fitter(worker, store, store.workspace).fit(model, old_facts("tflite-runtime"))
    assert (fit.answer, fit.lowered) == ("fits", None)
    expected = open_model("tflite", model).invoke(dense_models.sample())
    assert distance(run_there("tflite-runtime", model, dense_models.sample()), expected) < 1e-5


def test_weights_by_blocks_cannot_be_lowered(worker: Worker, store: Store, tmp_path: Path) -> None:
    """A scale per 16 or 32 weights has no older form: refused, not guessed."""
    model = dense_models.quantized(tmp_path / "net.tflite", "dynamic_wi4b32_afp32")
    fit = Fitter(worker, store, store.workspace).fit(model, old_facts("tflite-runtime"))
    assert fit.answer == "no"
    assert "FULLY_CONNECTED version 14 (it knows 10)" in fit.text
    assert fit.remedy


def onnx_net(path: Path, opset: int, ir: int, last: list[onnx.NodeProto], **more: Any) -> Path:
    """x → MatMul → `last` → y."""
    random = np.random.default_rng(0)
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 8]), ("y", [1, 4]))]
    weights = [numpy_helper.from_array(random.normal(size=(8, 4)).astype(np.float32), "w"), *more.get("weights", ())]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), *last]
    graph = helper.make_graph(nodes, "net", value[:1], value[1:], weights)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in more.get("domains", {}).items())]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=ir), path)
    return path


def _node(kind: str, *inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["a", *inputs], ["y"], **attributes)


_ONNX: dict[str, Callable[[Path], Path]] = {
    "IR version": lambda path: onnx_net(path, 19, 10, [_node("Softmax")]),
    "opset, nothing changed": lambda path: onnx_net(path, 21, 9, [_node("Softmax")]),
    "opset, an operator changed": lambda path: onnx_net(path, 22, 10, [_node("HardSwish")]),
    "opset, an operator is new": lambda path: onnx_net(path, 23, 11, [_node("Gelu", approximate="tanh")]),
    "a domain of which nothing is used": lambda path: onnx_net(path, 17, 9, [_node("Relu")], domains={"ai.onnx.ml": 5}),
}


@pytest.mark.parametrize("kind", _ONNX)
def test_what_onnxruntime_refuses(kind: str, worker: Worker, store: Store, tmp_path: Path) -> None:
    model = _ONNX[kind](tmp_path / "net.onnx")
    feed = {"x": np.random.default_rng(1).normal(size=(1, 8)).astype(np.float32)}
    with pytest.raises(RefusedThere):
        run_there("onnxruntime", model, feed)
    fit = Fitter(worker, store, store.workspace).fit(model, old_facts("onnxruntime"))
    lowered = lowered_file(store, fit, tmp_path / "lowered.onnx")
    expected = open_model("onnx", model).invoke(feed)
    assert distance(run_there("onnxruntime", lowered, feed), expected) < 1e-5


def test_newer_data_types_cannot_be_lowered(worker: Worker, store: Store, tmp_path: Path) -> None:
    packed = helper.make_tensor("q", TensorProto.INT4, [1, 4], [1, -2, 3, 7])
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    last = [helper.make_node("DequantizeLinear", ["q", "s"], ["d"]), _node("Add", "d")]
    model = onnx_net(tmp_path / "net.onnx", 21, 10, last, weights=[packed, scale])
    fit = Fitter(worker, store, store.workspace).fit(model, old_facts("onnxruntime"))
    assert fit.answer == "no"
    assert "INT4, which IR version 10 is the first to have" in fit.text


def test_a_lowered_file_that_answers_differently_is_none(worker: Worker, store: Store, tmp_path: Path) -> None:
    """Resize's rounding: the older number would mean something else, and a comparison on this host finds it."""
    from pipeline.errors import ConversionFailed
    from pipeline.fit.lower import _compare

    one = open_model("onnx", onnx_net(tmp_path / "one.onnx", 17, 8, [_node("Relu")]))
    other = open_model("onnx", onnx_net(tmp_path / "other.onnx", 17, 8, [_node("Softmax")]))
    with pytest.raises(ConversionFailed, match="answers differently"):
        _compare(one, other, [{"x": np.ones((1, 8), np.float32)}])
