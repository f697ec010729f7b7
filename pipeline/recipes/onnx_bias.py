"""Bias correction of a float `.onnx`, see `bias_correction`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from pipeline import onnx_file
from pipeline.recipes.bias_correction import (
    Array,
    channel_means,
    convolution_shift,
    dense_shift,
    dequantized_error,
    taken,
)
from pipeline.recipes.recipe import Ingredients


def corrected(ingredients: Ingredients, quantized: Path) -> Path:
    """The float model with biases that make up for the weights of `quantized`, in the scratch folder."""
    folder = ingredients.float_model.parent
    model = onnx_file.read_graph(ingredients.float_model)
    constants = {value.name: value for value in model.graph.initializer}
    rounded = integer_weights(quantized)
    every = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm") and node.input[1] in constants]
    # Of every such node, rounded here or not: the next mix of a search rounds others.
    axes = {node.input[0]: 1 for node in every}
    nodes = [node for node in every if node.input[1] in rounded and has_plain_bias(node, constants)]
    means = channel_means(ingredients.scratch / "means.npz", observed(ingredients, model, axes), axes)
    for number, node in enumerate(nodes):
        weights = onnx_file.array(constants[node.input[1]], folder)
        error = dequantized_error(*rounded[node.input[1]], weights)
        if node.op_type == "Gemm":
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            shift = dense_shift(error if transposed else error.T, means[node.input[0]])
        else:
            shift = convolution_shift(error, means[node.input[0]])
        has_bias = len(node.input) > 2 and node.input[2]
        bias = onnx_file.array(constants[node.input[2]], folder) if has_bias else np.zeros(len(shift), np.float32)
        name = f"{node.input[1]}/bias_corrected_{number}"  # of its own: others may share the one it had
        model.graph.initializer.append(numpy_helper.from_array((bias - shift).astype(np.float32), name))
        del node.input[2:]
        node.input.append(name)
    drop_unread(model)
    mended = ingredients.scratch / "corrected.onnx"
    onnx_file.write(model, mended, folder)
    return mended


def drop_unread(model: Any) -> None:
    """Take out constants that no node reads any more; in place."""
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    kept = [value for value in model.graph.initializer if value.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def has_plain_bias(node: Any, constants: Mapping[str, Any]) -> bool:
    """None, or a constant with one value for each output, used as it is."""
    scaled = any(a.name in ("alpha", "beta") and a.f != 1.0 for a in node.attribute)
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    bias = node.input[2] if len(node.input) > 2 else ""
    return not scaled and not transposed and (not bias or (bias in constants and len(constants[bias].dims) == 1))


def integer_weights(path: Path) -> dict[str, tuple[Array, Array, int]]:
    """Weights of a QDQ model by their float name: values, scales, axis of the scales."""
    model = onnx_file.read_graph(path)
    constants = {value.name: value for value in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        name = node.input[0] if node.op_type == "DequantizeLinear" else ""
        if name in constants and name.endswith("_quantized"):
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            values, scale = (onnx_file.array(constants[key], path.parent) for key in node.input[:2])
            if values.dtype == np.int8:
                found[name.removesuffix("_quantized")] = (values, scale, int(axis))
    return found


def observed(ingredients: Ingredients, model: Any, wanted: Mapping[str, int]) -> Iterator[dict[str, Array]]:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    inputs = {value.name for value in shown.graph.input}
    names = [name for name in wanted if name not in inputs]
    outputs = {value.name for value in shown.graph.output}
    for name in names:
        if name not in outputs:
            shown.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnx_file.session(shown, options, ingredients.float_model.parent)
    for sample in taken(ingredients.samples()):
        values = dict(zip(names, session.run(names, dict(sample)), strict=True)) if names else {}
        yield {**values, **{name: sample[name] for name in wanted if name in inputs}}
