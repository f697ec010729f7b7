"""Copies of a model with inner tensors as outputs, and the host's values of them. Run in the worker's child."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.quality.outputs import write_npz

Array = np.ndarray[Any, Any]


def layers(*, format: str, model: Path, report: object = None) -> list[tuple[str, str, str]]:
    """(key, name, op type) of every tensor that can be watched without changing what is computed, in order of running.

    A quantized ONNX graph is watched at its QuantizeLinear nodes alone: any other output would keep onnxruntime from
    making an integer kernel of the nodes around it. Such a tensor is named after the node that is quantized.
    """
    return _tflite_layers(model) if format == "tflite" else _onnx_layers(model)


def watch(
    *,
    format: str,
    model: Path,
    keys: Sequence[str],
    inputs: Path,
    watched: Path,
    expected: Path,
    report: object = None,
) -> list[str]:
    """Write the copy to `watched` and the host's values as output0, output1 … to `expected`; the outputs' keys.

    The model's own outputs come first. Raises ConversionFailed when the runtime here does not take the copy.
    """
    with np.load(inputs) as archive:
        given = dict(archive)
    values = _tflite_values if format == "tflite" else _onnx_values
    found = values(model, keys, given, watched)
    write_npz(expected, {f"output{number}": value for number, (_, value) in enumerate(found)})
    return [key for key, _ in found]


def _tflite_layers(path: Path) -> list[tuple[str, str, str]]:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    graph = model.subgraphs[0]
    ops = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    comparable = {getattr(schema.TensorType, name) for name in ("FLOAT32", "INT8", "UINT8", "INT16", "INT32", "INT64")}
    found = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        op = ops.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
        for index in operator.outputs:
            tensor = graph.tensors[index]
            if tensor.type in comparable and not tensor.isVariable:
                found.append((str(index), tensor.name.decode(), op))
    return found


def _tflite_values(
    path: Path, keys: Sequence[str], given: Mapping[str, Array], watched: Path
) -> list[tuple[str, Array]]:
    from ai_edge_litert.tools import flatbuffer_utils

    from pipeline.runtimes.litert import LiteRTModel

    model = flatbuffer_utils.read_model(str(path))
    graph = model.subgraphs[0]
    own = [int(index) for index in graph.outputs]
    places = [*own, *(int(key) for key in keys if int(key) not in own)]
    graph.outputs = np.array(places, np.int32)
    flatbuffer_utils.write_model(model, str(watched))
    running = LiteRTModel(watched)
    running.invoke(given)
    values = [running.interpreter.get_tensor(d["index"]) for d in running.interpreter.get_output_details()]
    return [(str(place), value) for place, value in zip(places, values, strict=True)]


def _onnx_layers(path: Path) -> list[tuple[str, str, str]]:
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    made_by = {name: node for node in graph.node for name in node.output}
    quantized = any(node.op_type == "QuantizeLinear" for node in graph.node)
    outputs = {value.name for value in graph.output}
    found = []
    for node in graph.node:
        source = made_by.get(node.input[0]) if node.op_type == "QuantizeLinear" else node
        for name in node.output:
            if name and (name in outputs or not quantized or node.op_type == "QuantizeLinear"):
                told = source or node
                found.append((name, told.name or name, told.op_type))
    return found


def _onnx_values(path: Path, keys: Sequence[str], given: Mapping[str, Array], watched: Path) -> list[tuple[str, Array]]:
    import onnx

    from pipeline import onnx_file
    from pipeline.runtimes.onnx import OnnxModel

    model = onnx_file.read_graph(path)
    own = [value.name for value in model.graph.output]
    more = [key for key in keys if key not in own]
    # A name alone: onnxruntime infers the rest.
    model.graph.output.extend(onnx.ValueInfoProto(name=key) for key in more)
    onnx_file.write(model, watched, path.parent)
    values = OnnxModel(watched).invoke(given)
    return [(key, values[key]) for key in (*own, *more)]
