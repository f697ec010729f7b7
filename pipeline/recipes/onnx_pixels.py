"""An .onnx model whose inputs become uint8 pixels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pipeline import onnx_file
from pipeline.errors import ConversionFailed
from pipeline.runtimes.pixels import Affine

_SAME_SCALE = 1e-5  # relative: scales are kept as float32


def take_pixels(plain: Path, pixels: Mapping[str, Affine], output: Path) -> None:
    """Write the model with uint8 inputs. Raises ConversionFailed for an input that is not float32."""
    model = onnx_file.read_graph(plain)  # scales are small, and so in the file itself
    inputs = {value.name: value for value in model.graph.input}
    for name, own in pixels.items():
        kind = inputs[name].type.tensor_type
        if kind.elem_type != TensorProto.FLOAT:
            raise ConversionFailed(
                f"{name} is no float32 input, so that nothing is to be folded", hint="leave it as it is"
            )
        kind.elem_type = TensorProto.UINT8
        if quantizing := _quantizing_alike(model.graph, name, own):
            for node in quantizing:
                model.graph.node.remove(node)
                _rename(model.graph, node.output[0], name)
        else:
            _rename(model.graph, name, f"{name}/real")
            made = _converting(model.graph, name, own)
            for node in reversed(made):
                model.graph.node.insert(0, node)
    onnx_file.write(model, output, plain.parent)


def _quantizing_alike(graph: Any, name: str, own: Affine) -> list[Any]:
    """The readers of the input, when each only quantizes it to the very levels that the bytes are; else none."""
    constants = {value.name: value for value in graph.initializer}
    readers = [node for node in graph.node if name in node.input]
    if own.zero_point is None or any(name == value.name for value in graph.output):
        return []
    for node in readers:
        if node.op_type != "QuantizeLinear" or node.input[0] != name or not {*node.input[1:]} <= constants.keys():
            return []
        scale, zero = (numpy_helper.to_array(constants[given]) for given in node.input[1:3])
        if zero.dtype != np.uint8 or abs(float(scale) / own.by[0] - 1) > _SAME_SCALE or int(zero) != own.zero_point:
            return []
    return readers


def _converting(graph: Any, name: str, own: Affine) -> list[Any]:
    """The nodes that make the old input, now `name`/real, of bytes."""
    for what, values in (("by", own.by), ("offset", own.offset)):
        graph.initializer.append(numpy_helper.from_array(own.along(values).astype(np.float32), f"{name}/{what}"))
    return [
        helper.make_node("Cast", [name], [f"{name}/levels"], f"{name}/cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}/levels", f"{name}/by"], [f"{name}/scaled"], f"{name}/scale"),
        helper.make_node("Add", [f"{name}/scaled", f"{name}/offset"], [f"{name}/real"], f"{name}/shift"),
    ]


def _rename(graph: Any, old: str, new: str) -> None:
    """Have all readers of a tensor read another one."""
    for node in graph.node:
        for place, given in enumerate(node.input):
            if given == old:
                node.input[place] = new
