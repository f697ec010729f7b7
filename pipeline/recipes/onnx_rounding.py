"""Rounding weights of a float `.onnx` by the layers' outputs, see `rounding`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx import numpy_helper

from pipeline import onnx_file
from pipeline.recipes.bias_correction import Array
from pipeline.recipes.onnx_bias import drop_unread, has_plain_bias, integer_weights, observed
from pipeline.recipes.recipe import Ingredients
from pipeline.recipes.rounding import Moments, no_moments, rounded

# Positions of one sample that are looked at, evenly spread: their neighbours hold nearly the same.
_POSITIONS = 1024
_MOST_INPUTS = 4096  # of one output: a matrix of second moments of 128 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """A Conv or Gemm; its weights as [groups, outputs, n]."""

    node: Any
    attributes: Mapping[str, Any]
    weights: Array
    transposed: bool

    def columns(self, values: Array) -> Array:
        """What each output position is made of, [groups, positions, n]."""
        groups, _, inputs = self.weights.shape
        if self.node.op_type == "Gemm":
            return values.reshape(1, -1, inputs)
        kernel = self.attributes["kernel_shape"]
        pads = self.attributes.get("pads") or [0] * (2 * len(kernel))
        strides = self.attributes.get("strides") or [1] * len(kernel)
        dilations = self.attributes.get("dilations") or [1] * len(kernel)
        half = len(kernel)
        padded = np.pad(values, [(0, 0), (0, 0), *zip(pads[:half], pads[half:], strict=True)])
        reach = [(size - 1) * apart + 1 for size, apart in zip(kernel, dilations, strict=True)]
        axes = tuple(range(2, 2 + half))
        windows = sliding_window_view(padded, reach, axis=axes)
        windows = windows[(slice(None), slice(None), *(slice(None, None, s) for s in strides))]
        inside: tuple[Any, ...] = (..., *(slice(None, None, apart) for apart in dilations))
        windows = windows[inside]
        positions = int(np.prod(windows.shape[2 : 2 + half]))
        chosen = np.unique(np.linspace(0, positions - 1, min(positions, _POSITIONS)).astype(int))
        places = np.unravel_index(chosen, windows.shape[2 : 2 + half])
        here: tuple[Any, ...] = (slice(None), slice(None), *places)
        taken: Array = windows[here]  # [batch, channels, positions, *kernel]
        batch, channels, count = taken.shape[:3]
        split = taken.reshape(batch, groups, channels // groups, count, -1)
        columns: Array = split.transpose(1, 0, 3, 2, 4).reshape(groups, batch * count, inputs)
        return columns


def by_output(ingredients: Ingredients, quantized: Path) -> Path:
    """The float model with weights on the grid of `quantized` that keep the outputs, and biases; in the scratch folder.

    The quantizer finds the same scales in it, and rounds what is on the grid already.
    """
    folder = ingredients.float_model.parent
    model = onnx_file.read_graph(ingredients.float_model)
    constants = {value.name: value for value in model.graph.initializer}
    grids = integer_weights(quantized)
    layers = [layer for node in model.graph.node if (layer := _layer(node, constants, grids, folder)) is not None]
    seen = [no_moments(layer.weights.shape[0], layer.weights.shape[2]) for layer in layers]
    for values in observed(ingredients, model, {layer.node.input[0]: 1 for layer in layers}):
        for layer, moments in zip(layers, seen, strict=True):
            moments.add(layer.columns(values[layer.node.input[0]]))
    for number, (layer, moments) in enumerate(zip(layers, seen, strict=True)):
        if moments.count:
            _mend(model, layer, moments, grids[layer.node.input[1]][1], constants, folder, number)
    drop_unread(model)
    mended = ingredients.scratch / "rounded.onnx"
    onnx_file.write(model, mended, folder)
    return mended


def _mend(
    model: Any, layer: _Layer, moments: Moments, scale: Array, constants: Mapping[str, Any], folder: Path, number: int
) -> None:
    node, (groups, outputs, _) = layer.node, layer.weights.shape
    scales = np.broadcast_to(np.asarray(scale, np.float64).reshape(-1), (groups * outputs,)).reshape(groups, outputs)
    integers, shift = rounded(layer.weights, scales, moments)
    flat = (integers * scales[:, :, None]).astype(np.float32)
    shape = list(constants[node.input[1]].dims)
    weights = flat[0].T if layer.transposed else flat.reshape(shape)
    has_bias = len(node.input) > 2 and node.input[2]
    bias = onnx_file.array(constants[node.input[2]], folder) if has_bias else np.zeros(groups * outputs, np.float32)
    mended = {
        f"{node.input[1]}/rounded_{number}": np.ascontiguousarray(weights),
        f"{node.input[1]}/bias_rounded_{number}": (bias - shift.reshape(-1)).astype(np.float32),
    }
    del node.input[1:]
    for name, values in mended.items():  # of its own: others may share the ones it had
        model.graph.initializer.append(numpy_helper.from_array(values, name))
        node.input.append(name)


def _layer(
    node: Any, constants: Mapping[str, Any], grids: Mapping[str, tuple[Array, Array, int]], folder: Path
) -> _Layer | None:
    if node.op_type not in ("Conv", "Gemm") or node.input[1] not in grids or node.input[1] not in constants:
        return None
    if not has_plain_bias(node, constants):
        return None
    attributes = {a.name: list(a.ints) if a.ints else a.i for a in node.attribute}
    weights = onnx_file.array(constants[node.input[1]], folder)
    _, scale, axis = grids[node.input[1]]
    transposed = node.op_type == "Gemm" and not attributes.get("transB", 0)
    if node.op_type == "Gemm":
        weights = weights.T[None] if transposed else weights[None]
    else:
        if any(a.name == "auto_pad" and a.s not in (b"", b"NOTSET") for a in node.attribute):
            return None
        attributes.setdefault("kernel_shape", list(weights.shape[2:]))
        groups = next((int(a.i) for a in node.attribute if a.name == "group"), 1)
        weights = weights.reshape(groups, weights.shape[0] // groups, -1)
    # A scale of every output, or one for all.
    along_outputs = scale.size == 1 or axis == (1 if transposed else 0)
    return (
        _Layer(node=node, attributes=attributes, weights=weights, transposed=transposed)
        if along_outputs and weights.shape[2] <= _MOST_INPUTS
        else None
    )
