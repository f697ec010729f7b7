"""The ops of a float `.tflite`, as ai-edge-quantizer names them: by the tensors they write."""

import math
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer.default_policy import DEFAULT_CONFIG_CHECK_POLICY

from pipeline.search.ops import Op

_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
_WEIGHTED = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}  # input with weights
_QUANTIZER_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}


def read_ops(path: Path) -> tuple[Op, ...]:
    """The ops of the first subgraph: the others are bodies of control flow, which the quantizer does not enter."""
    model = flatbuffer_utils.read_model(str(path))
    graph = model.subgraphs[0]
    rules = {op.value for op in DEFAULT_CONFIG_CHECK_POLICY}
    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
        kind = code.customCode.decode() if code.customCode else _NAMES.get(builtin, f"OP_{builtin}")
        floats = any(graph.tensors[i].type == schema.TensorType.FLOAT32 for i in operator.outputs if i >= 0)
        found.append(
            Op(
                # ai-edge-quantizer's scope of an op, less the `;` at its end.
                name=";".join(_name(graph, index) for index in operator.outputs),
                type=kind,
                reads=tuple(_name(graph, i) for i in operator.inputs if i >= 0 and not _is_constant(model, graph, i)),
                writes=tuple(_name(graph, index) for index in operator.outputs),
                macs=_macs(kind, graph, operator),
                int8=_is_int8(graph, operator),
                quantizable=floats and _QUANTIZER_NAMES.get(kind, kind) in rules,
            )
        )
    return tuple(found)


def _name(graph: Any, index: int) -> str:
    name: str = graph.tensors[index].name.decode()
    return name


def _is_int8(graph: Any, operator: Any) -> bool:
    """What it reads and what it writes are 8 bits wide: not a conversion, nor int8 weights alone."""
    ends = [graph.tensors[i].type for i in (operator.inputs[0], operator.outputs[0])] if len(operator.inputs) else []
    return bool(ends) and all(end in (schema.TensorType.INT8, schema.TensorType.UINT8) for end in ends)


def _is_constant(model: Any, graph: Any, index: int) -> bool:
    data = model.buffers[graph.tensors[index].buffer].data
    return data is not None and len(data) > 0


def _macs(kind: str, graph: Any, operator: Any) -> int:
    if kind == "BATCH_MATMUL":
        left, made = (graph.tensors[i].shape for i in (operator.inputs[0], operator.outputs[0]))
        return math.prod(int(size) for size in made) * int(left[-1])
    if kind not in _WEIGHTED:
        return 0
    weights: list[int] = [int(size) for size in graph.tensors[operator.inputs[_WEIGHTED[kind]]].shape]
    out: list[int] = [int(size) for size in graph.tensors[operator.outputs[0]].shape]
    if kind == "FULLY_CONNECTED":
        return math.prod(out) * weights[-1]
    if kind == "TRANSPOSE_CONV":  # every input element meets every weight of its channel
        given = graph.tensors[operator.inputs[2]].shape
        return math.prod(int(size) for size in given) * math.prod(weights[:-1])
    # One output element: the window, over all input channels unless the convolution is depthwise.
    return math.prod(out) * math.prod(weights[1:] if kind == "CONV_2D" else weights[1:-1])
