"""Two dense layers as `.tflite`, float or with weights of few bits; channels differ so much that scales matter."""

import contextlib
import io
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import quantizer, recipe

INPUTS, HIDDEN, OUTPUTS = 32, 64, 24


def sample() -> dict[str, np.ndarray[Any, Any]]:
    return {"x": np.random.default_rng(3).normal(size=(1, INPUTS)).astype(np.float32)}


def float_model(path: Path) -> Path:
    """x → dense 64, ReLU → dense 24 → y, with a signature."""
    random = np.random.default_rng(5)
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.description = 3, [graph], "dense"
    model.buffers, graph.tensors, graph.operators = [schema.BufferT()], [], []
    given = _tensor(model, graph, "x", (1, INPUTS))
    graph.inputs = [given]
    for number, (wide, activation) in enumerate(((HIDDEN, 1), (OUTPUTS, 0))):
        before = graph.tensors[given].shape[1]
        shares = np.exp(random.uniform(-3, 0.5, (wide, 1)))  # of channels: twenty times from the least to the most
        weights = random.normal(size=(wide, before)) * shares / np.sqrt(before)
        bias = random.normal(size=wide) * 0.1
        operator = schema.OperatorT()
        operator.opcodeIndex = 0
        operator.inputs = [
            given,
            _tensor(model, graph, f"weights{number}", weights.shape, weights),
            _tensor(model, graph, f"bias{number}", bias.shape, bias),
        ]
        given = _tensor(model, graph, f"dense{number}", (1, wide))
        operator.outputs = [given]
        operator.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        operator.builtinOptions = schema.FullyConnectedOptionsT()
        operator.builtinOptions.fusedActivationFunction = activation
        graph.operators.append(operator)
    graph.outputs = [given]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version, model.operatorCodes = 1, [code]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_named("x", 0)], [_named("y", given)]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def quantized(path: Path, name: str) -> Path:
    """The same by a recipe of ai-edge-quantizer, such as dynamic_wi8_afp32: it writes no operator versions."""
    source = float_model(path.with_suffix(".float.tflite"))
    made = quantizer.Quantizer(str(source))
    made.load_quantization_recipe(getattr(recipe, name)())
    with contextlib.redirect_stdout(io.StringIO()):
        path.write_bytes(made.quantize().quantized_model)
    return path


def stamped(path: Path, version: int) -> Path:
    """The int8 one with the version of dense layers written, as TensorFlow's converter does."""
    model = flatbuffer_utils.read_model(str(quantized(path, "dynamic_wi8_afp32")))
    for code in model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.FULLY_CONNECTED:
            code.version = version
    flatbuffer_utils.write_model(model, str(path))
    return path


def _tensor(model: Any, graph: Any, name: str, shape: tuple[int, ...], values: Any = None) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, list(shape), schema.TensorType.FLOAT32, 0
    if values is not None:
        buffer = schema.BufferT()
        buffer.data = list(values.astype(np.float32).tobytes())
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
