"""A .tflite whose inputs become uint8 pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from pipeline.errors import ConversionFailed
from pipeline.runtimes.pixels import Affine

_SIGNED = 128  # int8 has its zero point so much below uint8's
_SAME_SCALE = 1e-5  # relative: scales are kept as float32


def input_tensors(model: Any) -> dict[str, int]:
    """Name, as samples have it, to the number of the tensor in the main subgraph."""
    graph = model.subgraphs[0]
    for signature in model.signatureDefs or ():
        found = {entry.name.decode(): entry.tensorIndex for entry in signature.inputs}
        if set(found.values()) == set(graph.inputs):
            return found
    return {graph.tensors[index].name.decode(): index for index in graph.inputs}


def take_pixels(plain: Path, pixels: Mapping[str, Affine], output: Path) -> None:
    """Write the model with uint8 inputs. Raises ConversionFailed for an input that is not float32."""
    model = flatbuffer_utils.read_model(str(plain))
    graph, ours = model.subgraphs[0], input_tensors(model)
    made: list[Any] = []
    for name, own in pixels.items():
        index = ours[name]
        if graph.tensors[index].type != schema.TensorType.FLOAT32:
            raise ConversionFailed(
                f"{name} is no float32 input, so that nothing is to be folded", hint="leave it as it is"
            )
        if _is_quantized_alike(model, index, own):
            _become_uint8(graph.tensors[index], own.by[0], own.zero_point or 0)
        else:
            made += _converted(model, index, own)
    graph.operators = [*made, *graph.operators]
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(buffer.data, np.uint8)  # written at once, others byte by byte
    flatbuffer_utils.write_model(model, str(output))


def _is_quantized_alike(model: Any, index: int, own: Affine) -> bool:
    """Whether every reader of the input only quantizes it, to the very levels that the bytes are."""
    graph = model.subgraphs[0]
    readers = [operator for operator in graph.operators if index in operator.inputs]
    if own.zero_point is None or index in graph.outputs:
        return False
    for operator in readers:
        code = model.operatorCodes[operator.opcodeIndex]
        made = graph.tensors[operator.outputs[0]]
        if code.builtinCode != schema.BuiltinOperator.QUANTIZE or made.type != schema.TensorType.INT8:
            return False
        scale, zero = made.quantization.scale[0], made.quantization.zeroPoint[0]
        if abs(scale / own.by[0] - 1) > _SAME_SCALE or zero != own.zero_point - _SIGNED:
            return False
    return bool(readers)


def _become_uint8(tensor: Any, scale: float, zero_point: int) -> None:
    tensor.type = schema.TensorType.UINT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.array([zero_point], np.int64)


def _converted(model: Any, index: int, own: Affine) -> list[Any]:
    """A new input of bytes, and the ops that make the old one of it: DEQUANTIZE, MUL and ADD as they are needed."""
    graph = model.subgraphs[0]
    old = graph.tensors[index]
    taken = schema.TensorT()
    taken.name, taken.shape, taken.shapeSignature, taken.buffer = old.name, old.shape, old.shapeSignature, 0
    uniform = own.uniform
    zero = own.zero_point or 0
    _become_uint8(taken, own.by[0] if uniform else 1.0, zero)
    old.name = old.name + b"_real"
    graph.tensors.append(taken)
    number = len(graph.tensors) - 1
    graph.inputs = [number if one == index else one for one in graph.inputs]
    for signature in model.signatureDefs or ():
        for entry in signature.inputs:
            if entry.tensorIndex == index:
                entry.tensorIndex = number
    chain: list[tuple[int, Any]] = [(schema.BuiltinOperator.DEQUANTIZE, None)]
    if not uniform:
        chain.append((schema.BuiltinOperator.MUL, own.along(own.by)))
    if not uniform or (own.zero_point is None and any(own.offset)):
        chain.append((schema.BuiltinOperator.ADD, own.along(own.offset)))
    made = []
    for place, (kind, constant) in enumerate(chain):
        operator = schema.OperatorT()
        operator.opcodeIndex = _code(model, kind)
        operator.inputs = [number]
        if constant is not None:
            operator.inputs = [number, _constant(model, old.name + b"_%d" % place, constant)]
            options = schema.MulOptionsT if kind == schema.BuiltinOperator.MUL else schema.AddOptionsT
            operator.builtinOptions = options()
            operator.builtinOptionsType = (
                schema.BuiltinOptions.MulOptions
                if kind == schema.BuiltinOperator.MUL
                else schema.BuiltinOptions.AddOptions
            )
        number = index if place == len(chain) - 1 else _like(graph, old, b"_between_%d" % place)
        operator.outputs = [number]
        made.append(operator)
    return made


def _like(graph: Any, old: Any, ending: bytes) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = old.name + ending, old.type, old.shape, 0
    tensor.shapeSignature = old.shapeSignature
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _constant(model: Any, name: bytes, values: Any) -> int:
    graph = model.subgraphs[0]
    buffer, tensor = schema.BufferT(), schema.TensorT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.name, tensor.type, tensor.buffer = name, schema.TensorType.FLOAT32, len(model.buffers) - 1
    tensor.shape = np.array(values.shape, np.int32)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _code(model: Any, kind: int) -> int:
    for number, code in enumerate(model.operatorCodes):
        if code.builtinCode == kind:
            return number
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    code.version = 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
