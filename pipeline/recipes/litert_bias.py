"""Bias correction of a float `.tflite`, see `bias_correction`."""

import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from pipeline.recipes.bias_correction import (
    Array,
    channel_means,
    convolution_shift,
    dense_shift,
    dequantized_error,
    taken,
)
from pipeline.recipes.recipe import Ingredients
from pipeline.runtimes.litert import LiteRTModel

_CORRECTED = {
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
}


def corrected(ingredients: Ingredients, quantized: Path) -> Path:
    """The float model with biases that make up for the weights of `quantized`, in the scratch folder."""
    model = flatbuffer_utils.read_model_with_mutable_tensors(str(ingredients.float_model))
    rounded = _integer_weights(quantized)
    graph = model.subgraphs[0]
    every = [op for op in graph.operators if op_kind(model, op) in _CORRECTED]
    # Of every such op, rounded here or not: the next mix of a search rounds others.
    wanted = {_name(graph, op.inputs[0]): -1 for op in every}
    means = channel_means(ingredients.scratch / "means.npz", _observed(ingredients, wanted), wanted)
    for number, op in enumerate(op for op in every if _name(graph, op.inputs[1]) in rounded):
        given, weights = _name(graph, op.inputs[0]), float_constant(model, graph, op.inputs[1])
        bias = _bias(model, graph, op, weights)
        if given not in means or weights is None or bias is None:
            continue
        flattens = (
            op_kind(model, op) == schema.BuiltinOperator.FULLY_CONNECTED and len(means[given]) != weights.shape[1]
        )
        if flattens:  # its inputs are positions too, of which there is no mean
            continue
        values, scale, axis = rounded[_name(graph, op.inputs[1])]
        error = dequantized_error(values.reshape(weights.shape), scale, axis, weights)
        mended = (bias - _shift(op_kind(model, op), error, means[given])).astype(np.float32)
        set_constant(model, graph, op, 2, mended, f"corrected_{number}")
    mended_model = ingredients.scratch / "corrected.tflite"
    flatbuffer_utils.write_model(model, str(mended_model))
    return mended_model


def _shift(kind: int, error: Array, means: Array) -> Array:
    if kind == schema.BuiltinOperator.FULLY_CONNECTED:
        return dense_shift(error, means)
    if kind == schema.BuiltinOperator.CONV_2D:  # [O, h, w, I]
        return convolution_shift(np.moveaxis(error, -1, 1), means)
    # Depthwise is [1, h, w, I × multiplier]: a convolution with as many groups as inputs.
    return convolution_shift(np.moveaxis(error, -1, 0).reshape(error.shape[-1], 1, -1), means)


def _bias(model: Any, graph: Any, op: Any, weights: Array | None) -> Array | None:
    """Zeros where the op has none; None where it is no constant."""
    if len(op.inputs) > 2 and op.inputs[2] >= 0:
        return float_constant(model, graph, op.inputs[2])
    depthwise = op_kind(model, op) == schema.BuiltinOperator.DEPTHWISE_CONV_2D
    return None if weights is None else np.zeros(weights.shape[-1 if depthwise else 0], np.float32)


def op_kind(model: Any, op: Any) -> int:
    """Its code in `BuiltinOperator`."""
    code = model.operatorCodes[op.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _name(graph: Any, index: int) -> str:
    name: str = graph.tensors[index].name.decode()
    return name


def float_constant(model: Any, graph: Any, index: int) -> Array | None:
    """A constant tensor of float32, or None when it is neither."""
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.FLOAT32 or data is None or not len(data):
        return None
    found: Array = np.frombuffer(bytes(data), np.float32).reshape([int(size) for size in tensor.shape])
    return found


def _integer_weights(path: Path) -> dict[str, tuple[Array, Array, int]]:
    """Constant int8 and int4 tensors of a model: values, scales, axis of the scales."""
    model = flatbuffer_utils.read_model(str(path))
    found = {}
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        integer = tensor.type in (schema.TensorType.INT8, schema.TensorType.INT4)
        if integer and data is not None and len(data) and tensor.quantization is not None:
            values = np.frombuffer(bytes(data), np.int8)
            if tensor.type == schema.TensorType.INT4:  # two in a byte, the lower half first
                both = np.stack([(values << 4).astype(np.int8) >> 4, values >> 4], axis=-1).reshape(-1)
                values = both[: math.prod(int(size) for size in tensor.shape)]
            scale = np.asarray(tensor.quantization.scale, np.float32)
            found[tensor.name.decode()] = (values, scale, int(tensor.quantization.quantizedDimension))
    return found


def _observed(ingredients: Ingredients, wanted: Mapping[str, int]) -> Iterator[dict[str, Array]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "for debugging purposes only": it is what we are doing
        model = LiteRTModel(ingredients.float_model, preserve_all_tensors=True)
    indices = {str(d["name"]): int(d["index"]) for d in model.interpreter.get_tensor_details() if d["name"] in wanted}
    for inputs in taken(ingredients.samples()):
        model.invoke(model.encode(inputs))
        yield {name: model.interpreter.get_tensor(index) for name, index in indices.items()}


def set_constant(model: Any, graph: Any, op: Any, place: int, values: Array, suffix: str) -> None:
    """Give input `place` of the op new values: in its own tensor, or in a new one where it has none or shares it."""
    data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
    inputs = [int(index) for index in op.inputs] + [-1] * (place + 1 - len(op.inputs))
    name = graph.tensors[op.outputs[0]].name
    if inputs[place] >= 0:
        tensor = graph.tensors[inputs[place]]
        name = tensor.name
        readers = sum(int(index) == inputs[place] for other in graph.operators for index in other.inputs)
        sharers = sum(other.buffer == tensor.buffer for sub in model.subgraphs for other in sub.tensors)
        if readers == sharers == 1:
            model.buffers[tensor.buffer].data = data
            return
    buffer, own = schema.BufferT(), schema.TensorT()
    buffer.data = data
    model.buffers.append(buffer)
    own.name = name + f"/{suffix}".encode()
    own.shape, own.type = list(values.shape), schema.TensorType.FLOAT32
    own.buffer = len(model.buffers) - 1
    graph.tensors.append(own)
    inputs[place] = len(graph.tensors) - 1
    op.inputs = inputs
