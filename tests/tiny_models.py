"""Models of a few hundred bytes, built where they are used, with samples and the outputs a host would give."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from targets.records import BenchRequest

SHAPE = (1, 8)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A model with one sample and the expected answer, as files."""

    format: Literal["tflite", "onnx"]
    model: Path
    inputs: Path
    expected: Path

    @property
    def files(self) -> tuple[Path, Path, Path]:
        return self.model, self.inputs, self.expected

    def request(self, **changes: Any) -> BenchRequest:
        settings: dict[str, Any] = {"threads": 1, "warm_max_s": 0.05, "warm_min_samples": 3, "warm_max_samples": 50}
        return BenchRequest(
            blob=digest_of(self.model),
            format=self.format,
            inputs=digest_of(self.inputs),
            expected=digest_of(self.expected),
            **{**settings, **changes},
        )


def onnx_bundle(folder: Path, *, wrong_by: float = 0.0) -> Bundle:
    """y = x + x."""
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "double", tensor[:1], tensor[1:])
    return _bundle(folder, "onnx", _onnx_bytes(graph), wrong_by)


def slow_onnx_bundle(folder: Path, iterations: int) -> Bundle:
    """y = x, after counting to `iterations` inside one inference (some 300 ns each)."""
    count = helper.make_tensor_value_info("n", TensorProto.INT64, [])
    going = helper.make_tensor_value_info("going", TensorProto.BOOL, [])
    still = helper.make_tensor_value_info("still", TensorProto.BOOL, [])
    state = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("s", "t")]
    nodes = [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("Neg", ["s"], ["t"])]
    body = helper.make_graph(nodes, "body", [count, going, state[0]], [still, state[1]])
    trips = helper.make_tensor("trips", TensorProto.INT64, [], [iterations])
    loop = helper.make_node("Loop", ["trips", "", "x"], ["y"], body=body)
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy"]
    graph = helper.make_graph([loop], "slow", tensor[:1], tensor[1:], initializer=[trips])
    return _bundle(folder, "onnx", _onnx_bytes(graph), 0.0)


def _onnx_bytes(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tflite_bundle(folder: Path, *, wrong_by: float = 0.0, remainders: int = 0) -> Bundle:
    """y = x + x, with a signature whose names differ from the tensors'.

    After each remainder of the sum by itself y is 0; XNNPACK has no such operator.
    """
    operators = [schema.BuiltinOperator.ADD] + [schema.BuiltinOperator.FLOOR_MOD] * remainders
    return _bundle(folder, "tflite", _tflite_bytes(operators), wrong_by)


def tflite_chain(additions: int, shape: tuple[int, ...]) -> bytes:
    """y = 2^n · x by n additions of a value to itself, in tensors of this shape."""
    return _tflite_bytes([schema.BuiltinOperator.ADD] * additions, shape)


def _tflite_bytes(kinds: Sequence[int], shape: tuple[int, ...] = SHAPE) -> bytes:
    """A chain of operators, each of which takes what is before it twice."""
    tensors, operators, codes = [], [], []
    for name in ("inner_x:0", *(f"between_{number}" for number in range(1, len(kinds))), "inner_y:0"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), schema.TensorType.FLOAT32, 0
        tensors.append(tensor)
    for number, kind in enumerate(kinds):
        operator, code = schema.OperatorT(), schema.OperatorCodeT()
        operator.opcodeIndex, operator.inputs, operator.outputs = number, [number, number], [number + 1]
        if kind == schema.BuiltinOperator.ADD:
            operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
            operator.builtinOptions = schema.AddOptionsT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = 1
        operators.append(operator)
        codes.append(code)
    last = len(kinds)
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs, graph.name = tensors, operators, [0], [last], "main"
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_tensor_map("x", 0)], [_tensor_map("y", last)]
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], codes
    model.buffers, model.signatureDefs, model.description = [schema.BufferT()], [signature], "double"
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor_map(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def _bundle(folder: Path, form: Literal["tflite", "onnx"], model: bytes, wrong_by: float) -> Bundle:
    folder.mkdir(parents=True, exist_ok=True)
    bundle = Bundle(form, folder / f"model.{form}", folder / "inputs.npz", folder / "expected.npz")
    bundle.model.write_bytes(model)
    x = np.linspace(0, 1, SHAPE[1], dtype=np.float32).reshape(SHAPE)
    np.savez(bundle.inputs, x=x)
    np.savez(bundle.expected, y=x + x + np.float32(wrong_by))
    return bundle
