"""The ops of a float `.onnx`: nodes by their names, which every node is given (onnxruntime excludes nodes by name)."""

import math
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization.registry import QDQRegistry

from pipeline import onnx_file
from pipeline.recipes.coverage import onnx_integer_nodes
from pipeline.search.ops import Op

_INT8 = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
_CONVERSIONS = ("Constant", "QuantizeLinear", "DequantizeLinear")


def read_ops(path: Path) -> tuple[Op, ...]:
    """The nodes of the main graph."""
    model = with_node_names(onnx_file.read_graph(path))
    constants = {value.name for value in model.graph.initializer}
    constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    } | {value.name: list(value.dims) for value in model.graph.initializer}
    kinds = {value.name: value.data_type for value in model.graph.initializer}
    integer = onnx_integer_nodes(model.graph)
    wide = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and len(node.input) > 2 and kinds.get(node.input[2]) not in _INT8
    }
    # A free dimension counts as 1: shares of the compute are what matters.
    return tuple(
        Op(
            name=node.name,
            type=node.op_type,
            reads=tuple(name for name in node.input if name and name not in constants),
            writes=tuple(name for name in node.output if name),
            macs=_macs(node, shapes),
            quantizable=node.op_type in QDQRegistry,
            int8=bool(node.output) and node.output[0] in integer and node.input[0] not in wide,
        )
        for node in model.graph.node
        if node.op_type not in _CONVERSIONS
    )


def with_node_names(model: Any) -> Any:
    """The same model where every node has a name of its own; in place."""
    taken: set[str] = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}:{node.output[0]}:{number}"
        taken.add(node.name)
    return model


def _macs(node: Any, shapes: dict[str, list[int]]) -> int:
    out, inputs = shapes.get(node.output[0], []), [shapes.get(name, []) for name in node.input]
    if node.op_type == "Conv" and len(inputs[1]) > 2:
        return math.prod(out) * math.prod(inputs[1][1:])
    if node.op_type == "ConvTranspose" and len(inputs[1]) > 2:
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if node.op_type in ("MatMul", "Gemm") and inputs[0]:
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(out) * (inputs[0][0] if transposed else inputs[0][-1])
    return 0
