"""Cross-layer equalisation of a float `.tflite`, see `equalization`."""

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from pipeline.recipes.equalization import Layer, equalize, fits
from pipeline.recipes.litert_bias import float_constant, op_kind, set_constant

_OPS = schema.BuiltinOperator
_LAYERS = {_OPS.CONV_2D, _OPS.DEPTHWISE_CONV_2D, _OPS.FULLY_CONNECTED}
# Scaling a channel before them scales it after them, and they keep channels apart.
_PASSING = {_OPS.RELU, _OPS.MAX_POOL_2D, _OPS.AVERAGE_POOL_2D, _OPS.PAD}
_FUSED = {schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU}


def equalized(path: Path, output: Path) -> int:
    """Write the equalised model and return how many pairs of layers it has; writes nothing when there are none."""
    model = flatbuffer_utils.read_model_with_mutable_tensors(str(path))
    graph = model.subgraphs[0]
    consumers: dict[int, list[Any]] = {}
    for op in graph.operators:
        for index in dict.fromkeys(int(i) for i in op.inputs if i >= 0):
            consumers.setdefault(index, []).append(op)
    outputs = {int(index) for index in graph.outputs}
    ops = {str(place): op for place, op in enumerate(graph.operators) if _layer(model, graph, op) is not None}
    layers = {name: layer for name, op in ops.items() if (layer := _layer(model, graph, op)) is not None}
    names = {id(op): name for name, op in ops.items()}
    pairs = []
    for name, op in ops.items():
        after = _next(model, op, consumers, outputs)
        if after is not None and id(after) in names and fits(layers[name], layers[names[id(after)]]):
            pairs.append((name, names[id(after)]))
    if not pairs:
        return 0
    equalize(layers, pairs)
    for number, name in enumerate(dict.fromkeys(name for pair in pairs for name in pair)):
        _write(model, graph, ops[name], layers[name], number)
    flatbuffer_utils.write_model(model, str(output))
    return len(pairs)


def _layer(model: Any, graph: Any, op: Any) -> Layer | None:
    kind = op_kind(model, op)
    if kind not in _LAYERS:
        return None
    weights = float_constant(model, graph, op.inputs[1])
    has_bias = len(op.inputs) > 2 and op.inputs[2] >= 0
    bias = float_constant(model, graph, op.inputs[2]) if has_bias else None
    if weights is None or (has_bias and bias is None):
        return None
    if kind == _OPS.DEPTHWISE_CONV_2D:
        if op.builtinOptions.depthMultiplier != 1:
            return None
        return Layer(np.moveaxis(weights[0], -1, 0).reshape(weights.shape[-1], 1, -1), bias, True)
    if kind == _OPS.FULLY_CONNECTED:
        return Layer(weights[:, :, None], bias, False)
    given = graph.tensors[op.inputs[0]].shape[-1]
    if given != weights.shape[-1]:  # grouped
        return None
    return Layer(np.moveaxis(weights, -1, 1).reshape(weights.shape[0], weights.shape[-1], -1), bias, False)


def _next(model: Any, op: Any, consumers: dict[int, list[Any]], outputs: set[int]) -> Any:
    """The only op that reads what `op` makes, over those that let a scale pass; None when there is none."""
    if op.builtinOptions.fusedActivationFunction not in _FUSED:
        return None
    while True:
        made = int(op.outputs[0])
        readers = consumers.get(made, [])
        if made in outputs or len(readers) != 1 or int(readers[0].inputs[0]) != made:
            return None
        [op] = readers
        if op_kind(model, op) not in _PASSING:
            return op
        if getattr(op.builtinOptions, "fusedActivationFunction", 0) not in _FUSED:
            return None


def _write(model: Any, graph: Any, op: Any, layer: Layer, number: int) -> None:
    kind, shape = op_kind(model, op), [int(size) for size in graph.tensors[op.inputs[1]].shape]
    weights = layer.weights
    if kind == _OPS.DEPTHWISE_CONV_2D:
        weights = np.moveaxis(weights.reshape(shape[-1], *shape[1:3]), 0, -1)[None]
    elif kind == _OPS.CONV_2D:
        weights = np.moveaxis(weights.reshape(shape[0], shape[-1], *shape[1:3]), 1, -1)
    set_constant(model, graph, op, 1, weights.reshape(shape), f"equalized_{number}")
    if layer.bias is not None:
        set_constant(model, graph, op, 2, layer.bias, f"equalized_{number}")
