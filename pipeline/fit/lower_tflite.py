"""A `.tflite` file for a runtime that is too old for it: other operators that compute the same.

Weights of 4 or 2 bits are unpacked to 8: the same numbers, a larger file. A dense layer that computes on float inputs
and int8 weights with a scale per channel becomes one with a single scale, a multiplication by the channels' shares of
it, and an addition of the bias: s_c · (q_c · x) + b = (s_c / s) · (s · q_c · x) + b, so no weight is rounded again.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from pipeline.fit.op_versions import needed_version
from pipeline.fit.tflite_graph import Tensor

_OP = schema.BuiltinOperator
_TYPE = schema.TensorType
_BITS = {_TYPE.INT4: 4, _TYPE.INT2: 2}
_BLOCKWISE = schema.QuantizationDetails.BlockwiseQuantization
# Version with int8 weights in place of packed ones, by the type of the input: (one scale, a scale per channel).
_UNPACKED = {
    (_OP.CONV_2D, _TYPE.INT8): (3, 3),
    (_OP.CONV_2D, _TYPE.FLOAT32): (2, 5),
    (_OP.DEPTHWISE_CONV_2D, _TYPE.INT8): (3, 3),
    (_OP.DEPTHWISE_CONV_2D, _TYPE.FLOAT32): (4, 6),
    (_OP.FULLY_CONNECTED, _TYPE.INT8): (4, 4),
    (_OP.FULLY_CONNECTED, _TYPE.INT16): (4, 4),
    (_OP.FULLY_CONNECTED, _TYPE.FLOAT32): (3, 12),
    (_OP.DEQUANTIZE, _TYPE.INT8): (2, 5),
    (_OP.EMBEDDING_LOOKUP, _TYPE.INT32): (1, 4),
}


def lower_tflite(model: Path, output: Path, knows: Callable[[int, int], bool], newest_type: int) -> list[str]:
    """Rewrite what the runtime does not know, as far as we can; what was done, in words.

    Args:
        knows: whether the runtime knows a version of an operator, by the operator's code.
        newest_type: the newest data type of tensors that it knows.
    """
    found = flatbuffer_utils.read_model(str(model))
    steps = []
    if unpacked := _unpack(found, knows, newest_type):
        steps.append(f"packed weights of {_counted(unpacked, 'tensor')} unpacked to int8")
    if not knows(_OP.FULLY_CONNECTED, 12) and (split := _split_every(found)):
        steps.append(f"one weight scale in {_counted(split, 'dense layer')}, the channels' multiplied in behind")
    if restamped := _restamp(found, knows):
        steps.append(f"{_counted(restamped, 'dense layer')} marked with no newer a version than needed")
    if steps:
        _drop_unused_codes(found)
        flatbuffer_utils.write_model(found, str(output))
    return steps


def _unpack(model: Any, knows: Callable[[int, int], bool], newest_type: int) -> int:
    done = 0
    for graph in model.subgraphs:
        packed = {}
        for place, tensor in enumerate(graph.tensors):
            details = tensor.quantization.detailsType if tensor.quantization else 0
            if tensor.type in _BITS and _data(model, tensor) is not None and details != _BLOCKWISE:
                packed[place] = tensor
        users = [
            (op, place) for op in graph.operators for place in op.inputs if place in packed and _kind(model, op) != -1
        ]
        unknown = {
            place
            for op, place in users
            if packed[place].type > newest_type or not knows(_kind(model, op), _packed_version(model, graph, op))
        }
        for place in unknown:
            tensor = packed[place]
            values = _unpacked(
                np.asarray(_data(model, tensor), np.uint8), _BITS[tensor.type], int(np.prod(tensor.shape))
            )
            tensor.type, tensor.buffer = _TYPE.INT8, _buffer(model, values)
            done += 1
        for op, place in users:
            if place in unknown:
                given = _TYPE.INT8 if _kind(model, op) == _OP.DEQUANTIZE else graph.tensors[op.inputs[0]].type
                versions = _UNPACKED.get((_kind(model, op), given))
                if versions:
                    per_channel = len(graph.tensors[place].quantization.scale) > 1
                    op.opcodeIndex = _code(model, _kind(model, op), versions[per_channel])
    return done


def _packed_version(model: Any, graph: Any, op: Any) -> int:
    """The version that such an operator needs with packed weights."""
    inputs, outputs = ([_seen(graph, place) for place in places] for places in (op.inputs, op.outputs))
    written = int(model.operatorCodes[op.opcodeIndex].version)
    return max(needed_version(_kind(model, op), inputs, outputs), written)


def _seen(graph: Any, place: int) -> Tensor | None:
    if place < 0:
        return None
    tensor = graph.tensors[place]
    quantization = tensor.quantization
    return Tensor(
        shape=tuple(tensor.shape),
        type=tensor.type,
        buffer=tensor.buffer,
        constant=False,
        variable=False,
        scales=len(quantization.scale) if quantization and quantization.scale is not None else 0,
        blockwise=bool(quantization) and quantization.detailsType == _BLOCKWISE,
    )


def _unpacked(data: Any, bits: int, count: int) -> Any:
    """The integers of a packed buffer, the first in the lowest bits, as int8."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    values = ((data[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[:count].astype(np.int8)
    return np.where(values >= 1 << (bits - 1), values - (1 << bits), values).astype(np.int8)


def _split_every(model: Any) -> int:
    done = 0
    for graph in model.subgraphs:
        operators = []
        for op in graph.operators:
            operators.append(op)
            if _kind(model, op) == _OP.FULLY_CONNECTED and _per_channel(graph, op):
                operators += _split(model, graph, op)
                done += 1
        graph.operators = operators
    return done


def _per_channel(graph: Any, op: Any) -> bool:
    """Whether a dense layer has float inputs and int8 weights with a scale per channel."""
    weights = graph.tensors[op.inputs[1]]
    quantization = weights.quantization
    return bool(
        graph.tensors[op.inputs[0]].type == _TYPE.FLOAT32
        and weights.type == _TYPE.INT8
        and weights.sparsity is None
        and quantization
        and quantization.detailsType != _BLOCKWISE
        and quantization.scale is not None
        and len(quantization.scale) == weights.shape[0] > 1
    )


def _split(model: Any, graph: Any, op: Any) -> list[Any]:
    """Make `op` a dense layer of one scale without bias; the operators that go behind it."""
    weights = graph.tensors[op.inputs[1]]
    scales = np.asarray(weights.quantization.scale, np.float32)
    largest = scales.max()
    single = copy.copy(weights)  # another operator may use the same weights as they are
    single.quantization = copy.copy(weights.quantization)
    single.quantization.scale, single.quantization.zeroPoint = [float(largest)], [0]
    single.quantization.quantizedDimension, single.quantization.min, single.quantization.max = 0, None, None
    bias = op.inputs[2] if len(op.inputs) > 2 else -1
    output, options = op.outputs[0], op.builtinOptions
    activation, options.fusedActivationFunction = options.fusedActivationFunction, schema.ActivationFunctionType.NONE
    op.inputs = [op.inputs[0], _tensor(graph, single), -1]
    op.outputs = [_like(graph, output, "product")]
    op.opcodeIndex = _code(model, _OP.FULLY_CONNECTED, _dense_version(graph, op))
    shares = _constant(model, graph, output, "shares", scales / largest)
    scaled = output if bias < 0 else _like(graph, output, "scaled")
    plain = schema.ActivationFunctionType.NONE
    times = _binary(model, _OP.MUL, op.outputs[0], shares, scaled, activation if bias < 0 else plain)
    return [times] if bias < 0 else [times, _binary(model, _OP.ADD, scaled, bias, output, activation)]


def _binary(model: Any, kind: int, left: int, right: int, output: int, activation: int) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = _code(model, kind, 1), [left, right], [output]
    if kind == _OP.MUL:
        made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
    else:
        made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    made.builtinOptions.fusedActivationFunction = activation
    return made


def _kind(model: Any, op: Any) -> int:
    code = model.operatorCodes[op.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _code(model: Any, kind: int, version: int) -> int:
    """The place of an operator code, which is added when it is missing."""
    for place, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == kind and code.version == version:
            return place
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode, made.version = kind, min(kind, 127), version
    model.operatorCodes.append(made)
    return len(model.operatorCodes) - 1


def _restamp(model: Any, knows: Callable[[int, int], bool]) -> int:
    """Dense layers share the operator code of the newest among them, also those that need no such version."""
    done = 0
    for graph in model.subgraphs:
        for op in graph.operators:
            if _kind(model, op) != _OP.FULLY_CONNECTED:
                continue
            needed = _dense_version(graph, op)
            if not knows(_OP.FULLY_CONNECTED, model.operatorCodes[op.opcodeIndex].version) and needed:
                op.opcodeIndex = _code(model, _OP.FULLY_CONNECTED, needed)
                done += 1
    return done


def _dense_version(graph: Any, op: Any) -> int:
    """The version that a dense layer of the older kinds needs; 0 for the others."""
    options = op.builtinOptions
    kinds = graph.tensors[op.inputs[0]].type, graph.tensors[op.inputs[1]].type
    least = {
        (_TYPE.FLOAT32, _TYPE.FLOAT32): 1,
        (_TYPE.FLOAT32, _TYPE.INT8): 9 if options.asymmetricQuantizeInputs else 3,
        (_TYPE.INT8, _TYPE.INT8): 4,
        (_TYPE.INT16, _TYPE.INT8): 4,
    }.get(kinds, 0)
    weights = graph.tensors[op.inputs[1]]
    if not least or weights.sparsity is not None or options.quantizedBiasType or _per_channel(graph, op):
        return 0
    return max(least, 6 if len(op.inputs) == 2 else 1, 5 if options.keepNumDims else 1)


def _drop_unused_codes(model: Any) -> None:
    """A runtime looks up every code that is written, also one that no operator has any more."""
    every = [op for graph in model.subgraphs for op in graph.operators]
    used = sorted({op.opcodeIndex for op in every})
    for op in every:
        op.opcodeIndex = used.index(op.opcodeIndex)
    model.operatorCodes = [model.operatorCodes[place] for place in used]


def _data(model: Any, tensor: Any) -> Any:
    data = model.buffers[tensor.buffer].data
    return data if data is not None and len(data) else None


def _buffer(model: Any, values: Any) -> int:
    made = schema.BufferT()
    made.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    model.buffers.append(made)
    return len(model.buffers) - 1


def _tensor(graph: Any, tensor: Any) -> int:
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _constant(model: Any, graph: Any, place: int, what: str, values: Any) -> int:
    """A new float vector, named after the tensor at `place`."""
    made = schema.TensorT()
    made.name, made.shape, made.type = _name(graph, place, what), [len(values)], _TYPE.FLOAT32
    made.buffer = _buffer(model, values.astype(np.float32))
    return _tensor(graph, made)


def _like(graph: Any, place: int, what: str) -> int:
    """A new float tensor of the shape of another."""
    made, shape = schema.TensorT(), graph.tensors[place]
    made.name, made.shape, made.shapeSignature = _name(graph, place, what), shape.shape, shape.shapeSignature
    made.type, made.buffer = _TYPE.FLOAT32, 0
    return _tensor(graph, made)


def _name(graph: Any, place: int, what: str) -> bytes:
    name = graph.tensors[place].name
    return (name if isinstance(name, bytes) else name.encode()) + f";{what}".encode()


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
