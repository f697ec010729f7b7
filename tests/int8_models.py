"""Integer models of a few hundred bytes whose outputs vary with every rounding, with the host's own answers."""

from pathlib import Path

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper
from tiny_models import Bundle

_INPUTS, _OUTPUTS = 64, 96
_IN, _WEIGHTS, _OUT = 0.02, 0.011, 0.013  # scales; the quotient of two by the third is no power of two


def _numbers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input, weights (one row per output) and bias, as int8, int8 and int32."""
    random = np.random.default_rng(7)
    x = random.integers(-128, 128, (1, _INPUTS), dtype=np.int8)
    weights = random.integers(-9, 10, (_OUTPUTS, _INPUTS), dtype=np.int8)
    return x, weights, random.integers(-400, 400, _OUTPUTS, dtype=np.int32)


def int8_tflite_bundle(folder: Path) -> Bundle:
    """One fully connected layer, int8 in and out."""
    x, weights, bias = _numbers()
    model = schema.ModelT()
    model.version, model.description = 3, "dense"
    model.buffers = [schema.BufferT(), *(_buffer(array) for array in (weights, bias))]
    rows = (
        ("x", [1, _INPUTS], schema.TensorType.INT8, 0, _IN),
        ("w", [_OUTPUTS, _INPUTS], schema.TensorType.INT8, 1, _WEIGHTS),
        ("b", [_OUTPUTS], schema.TensorType.INT32, 2, _IN * _WEIGHTS),
        ("y", [1, _OUTPUTS], schema.TensorType.INT8, 0, _OUT),
    )
    graph = schema.SubGraphT()
    graph.name, graph.tensors, graph.inputs, graph.outputs = "main", [_tensor(*row) for row in rows], [0], [3]
    dense = schema.OperatorT()
    dense.opcodeIndex, dense.inputs, dense.outputs = 0, [0, 1, 2], [3]
    dense.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    dense.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [dense]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    model.subgraphs, model.operatorCodes, model.signatureDefs = [graph], [code], [_signature()]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    data = bytes(builder.Output())
    y = Interpreter(model_content=data).get_signature_runner()(x=x)["y"]
    return _bundle(folder, "tflite", data, x, y)


def _buffer(array: np.ndarray) -> schema.BufferT:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(array.tobytes(), np.uint8)
    return buffer


def _tensor(name: str, shape: list[int], kind: int, buffer: int, scale: float) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, kind, buffer
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
    return tensor


def _signature() -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    maps = []
    for name, index in (("x", 0), ("y", 3)):
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, index
        maps.append([entry])
    signature.inputs, signature.outputs = maps
    return signature


def int8_onnx_bundle(folder: Path) -> Bundle:
    """The same layer as one integer operator."""
    import onnxruntime

    x, weights, _ = _numbers()
    zero = np.int8(0)
    constants = {"w": weights.T.copy(), "xs": np.float32(_IN), "ws": np.float32(_WEIGHTS), "ys": np.float32(_OUT)}
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in {**constants, "z": zero}.items()]
    node = helper.make_node("QLinearMatMul", ["x", "xs", "z", "w", "ws", "z", "ys", "z"], ["y"])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.INT8, [1, size])
        for name, size in (("x", _INPUTS), ("y", _OUTPUTS))
    ]
    graph = helper.make_graph([node], "dense", ends[:1], ends[1:], initializer=arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    (y,) = onnxruntime.InferenceSession(data).run(None, {"x": x})
    return _bundle(folder, "onnx", data, x, y)


def _bundle(folder: Path, form: str, model: bytes, x: np.ndarray, y: np.ndarray) -> Bundle:
    assert len(np.unique(y)) > 40, "an output that hardly varies would prove nothing"
    folder.mkdir(parents=True, exist_ok=True)
    kind = "tflite" if form == "tflite" else "onnx"
    bundle = Bundle(kind, folder / f"model.{form}", folder / "inputs.npz", folder / "expected.npz")
    bundle.model.write_bytes(model)
    np.savez(bundle.inputs, x=x)
    np.savez(bundle.expected, y=y)
    return bundle
