"""Cross-layer equalisation of a float `.onnx`, see `equalization`."""

from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from pipeline import onnx_file
from pipeline.recipes.equalization import Layer, equalize, fits
from pipeline.recipes.onnx_bias import drop_unread

# Scaling a channel before them scales it after them, and they keep channels apart.
_PASSING = ("Relu", "MaxPool", "AveragePool", "GlobalAveragePool")


def equalized(path: Path, output: Path) -> int:
    """Write the equalised model and return how many pairs of layers it has; writes nothing when there are none."""
    model = onnx_file.read(path)
    constants = {value.name: value for value in model.graph.initializer}
    consumers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            consumers.setdefault(name, []).append(node)
    outputs = {value.name for value in model.graph.output}
    layers = {node.output[0]: layer for node in model.graph.node if (layer := _layer(node, constants)) is not None}
    nodes = {node.output[0]: node for node in model.graph.node if node.output and node.output[0] in layers}
    pairs = []
    for name, node in nodes.items():
        after = _next(node, consumers, outputs)
        if after is not None and after.output[0] in layers and fits(layers[name], layers[after.output[0]]):
            pairs.append((name, after.output[0]))
    if not pairs:
        return 0
    equalize(layers, pairs)
    for number, name in enumerate(dict.fromkeys(name for pair in pairs for name in pair)):
        node, layer = nodes[name], layers[name]
        shape = list(constants[node.input[1]].dims)
        _set(model, node, 1, layer.weights.reshape(shape), f"equalized_{number}")
        if layer.bias is not None:
            _set(model, node, 2, layer.bias, f"equalized_{number}")
    drop_unread(model)
    onnx_file.write(model, output)
    return len(pairs)


def _layer(node: Any, constants: dict[str, Any]) -> Layer | None:
    if node.op_type != "Conv" or node.input[1] not in constants:
        return None
    has_bias = len(node.input) > 2 and bool(node.input[2])
    if has_bias and node.input[2] not in constants:
        return None
    weights = numpy_helper.to_array(constants[node.input[1]])
    bias = numpy_helper.to_array(constants[node.input[2]]) if has_bias else None
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    depthwise = groups > 1 and groups == weights.shape[0] and weights.shape[1] == 1
    if groups > 1 and not depthwise:
        return None
    return Layer(weights.reshape(*weights.shape[:2], -1), bias, depthwise)


def _next(node: Any, consumers: dict[str, list[Any]], outputs: set[str]) -> Any:
    """The only node that reads what `node` makes, over those that let a scale pass; None when there is none."""
    while True:
        made = node.output[0]
        readers = consumers.get(made, [])
        if made in outputs or len(readers) != 1 or readers[0].input[0] != made:
            return None
        [node] = readers
        if node.op_type not in _PASSING:
            return node


def _set(model: Any, node: Any, place: int, values: Any, suffix: str) -> None:
    """A constant of the node's own: others may share the one it had."""
    name = f"{node.input[place]}/{suffix}"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))
    node.input[place] = name
