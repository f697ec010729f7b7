"""Float models of a few kilobytes that are mostly weights, and some that break quantizers in ways real ones do."""

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

TOKENS = 64


def dense_tflite(folder: Path, outputs: int = 32) -> Path:
    """y = W x with 128 inputs, float32."""
    weights = np.random.default_rng(3).standard_normal((outputs, 128)).astype(np.float32)
    model, graph, data = schema.ModelT(), schema.SubGraphT(), schema.BufferT()
    data.data = np.frombuffer(weights.tobytes(), np.uint8)
    for name, shape, buffer in (("x", [1, 128], 0), ("w", [outputs, 128], 1), ("y", [1, outputs], 0)):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, schema.TensorType.FLOAT32, buffer
        graph.tensors = [*(graph.tensors or []), tensor]
    dense, code = schema.OperatorT(), schema.OperatorCodeT()
    dense.opcodeIndex, dense.inputs, dense.outputs = 0, [0, 1, -1], [2]
    dense.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    dense.builtinOptions = schema.FullyConnectedOptionsT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    graph.name, graph.operators, graph.inputs, graph.outputs = "main", [dense], [0], [2]
    model.version, model.description, model.buffers = 3, "dense", [schema.BufferT(), data]
    model.subgraphs, model.operatorCodes, model.signatureDefs = [graph], [code], [_signature()]
    builder = flatbuffers.Builder(1024 * outputs)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = folder / "dense.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


def language_onnx(folder: Path) -> Path:
    """Embedding, two matrix products and a mean whose `axes` are an attribute, as they were until opset 17."""
    random = np.random.default_rng(4)
    arrays = {
        "table": random.standard_normal((TOKENS, 64)),
        "w1": random.standard_normal((64, 96)) / 8 * np.exp(random.standard_normal(96)),
        "w2": random.standard_normal((8, 96)) / 10,
        "b2": random.standard_normal(8),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["m", "w2", "b2"], ["y"], transB=1),
    ]
    return _saved(folder / "language.onnx", nodes, arrays, ("ids", TensorProto.INT64, [1, 6]), [1, 8])


def overflowing_onnx(folder: Path) -> Path:
    """Ordinary numbers go in and come out; the square in between is beyond half precision."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="widen"),
        helper.make_node("Mul", ["a", "a"], ["b"], name="square"),
        helper.make_node("Sqrt", ["b"], ["c"], name="root"),
        helper.make_node("MatMul", ["c", "v"], ["y"], name="narrow"),
    ]
    w = np.random.default_rng(5).standard_normal((16, 16)) * 500
    arrays = {"w": w, "v": np.eye(16) / 500}
    return _saved(folder / "overflow.onnx", nodes, arrays, ("x", TensorProto.FLOAT, [1, 16]), [1, 16])


def no_half_onnx(folder: Path) -> Path:
    """One of its ops, onnxruntime's own, has no half-precision form."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="project"),
        helper.make_node("CDist", ["a", "v"], ["y"], name="distance", domain="com.microsoft", metric="euclidean"),
    ]
    random = np.random.default_rng(6)
    arrays = {"w": random.standard_normal((16, 16)), "v": random.standard_normal((4, 16))}
    return _saved(folder / "no_half.onnx", nodes, arrays, ("x", TensorProto.FLOAT, [1, 16]), [1, 4])


def old_onnx(folder: Path) -> Path:
    """A convolution of opset 12, whose DequantizeLinear knows one scale for a whole tensor only."""
    weights = np.random.default_rng(7).standard_normal((4, 3, 3, 3)) / 5
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])]
    given = ("x", TensorProto.FLOAT, [1, 3, 8, 8])
    return _saved(folder / "old.onnx", nodes, {"w": weights}, given, [1, 4, 8, 8], opset=12)


def _saved(
    path: Path,
    nodes: list[Any],
    arrays: dict[str, Any],
    given: tuple[str, int, list[int]],
    out: list[int],
    opset: int = 17,
) -> Path:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(*given)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    if any(node.domain for node in nodes):
        opsets.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def _signature() -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    maps = []
    for name, index in (("x", 0), ("y", 2)):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        maps.append([entry])
    signature.inputs, signature.outputs = maps
    return signature
