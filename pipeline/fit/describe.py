"""The worker's side of looking at a model file. ONNX's shapes are inferred, for which its package reads the file."""

from collections.abc import Iterable
from pathlib import Path

import onnx

from pipeline.errors import InputError
from pipeline.fit import flatbuffer, tflite_graph
from pipeline.fit.memory import peak_bytes, tflite_peak_bytes
from pipeline.fit.needs import is_tflite, needs_of
from pipeline.fit.records import Described, Malformed, OnnxNeeds, TfliteNeeds
from pipeline.fit.tflite_graph import INT8, INT16, UINT8
from pipeline.model_files import total_bytes

_INTEGER_OPS = {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm", "DequantizeLinear"}
_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4e2m1": 4}


def describe(*, model: Path, format: str = "", report: object = None) -> Described:
    """What a device must have for the model file; an empty `format` is told by its suffix or its first bytes.

    Raises:
        InputError: it is no whole `.tflite` or `.onnx` file.
    """
    data = model.read_bytes()
    tflite = (format or model.suffix.removeprefix(".")) == "tflite" or is_tflite(data[:8])
    try:
        needs = needs_of("tflite" if tflite else "onnx", data)
    except Malformed as error:
        hint = "give a .tflite or .onnx file, or a recipe of the last run"
        raise InputError(f"{model}: {error}", hint=hint) from None
    if isinstance(needs, TfliteNeeds):
        graphs = list(tflite_graph.graphs(flatbuffer.root(data)))
        computed = [
            graph.tensors[place].type
            for graph in graphs
            for operator in graph.operators
            for place in operator.outputs
            if 0 <= place < len(graph.tensors) and graph.tensors[place].scales
        ]
        hybrid = any(t.constant and t.scales and t.type == INT8 for graph in graphs for t in graph.tensors)
        return Described(
            format="tflite",
            size_bytes=len(data),
            needs=needs,
            activation_bytes=tflite_peak_bytes(graphs),
            integer=hybrid or bool({INT8, UINT8} & set(computed)),
            wide_integer=INT16 in computed,
        )
    assert isinstance(needs, OnnxNeeds)
    return _onnx(model, needs)


def _onnx(path: Path, needs: OnnxNeeds) -> Described:
    loaded = onnx.load(path, load_external_data=False)
    try:
        graph = onnx.shape_inference.infer_shapes(loaded).graph
    except Exception:  # of a model that is odd, or over 2 GB: then its memory is not known
        graph = loaded.graph
    values = {value.name: _bytes(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    weights = {tensor.name for tensor in graph.initializer}
    names = {name: place for place, name in enumerate(name for name in values if name not in weights)}
    sizes = [values[name] for name in names]

    def places(wanted: Iterable[str]) -> list[int]:
        return [names[name] for name in wanted if name in names]

    steps = [(places(node.input), places(node.output)) for node in graph.node]
    kept = places([value.name for value in (*graph.input, *graph.output)])
    known = sum(1 for node in graph.node for name in node.output if name in names)
    total = sum(1 for node in graph.node for name in node.output if name)
    return Described(
        format="onnx",
        size_bytes=total_bytes("onnx", path),
        needs=needs,
        # With half of the shapes unknown the sum says nothing.
        activation_bytes=peak_bytes(sizes, steps, kept) if 2 * known > total else 0,
        integer=any(node.op_type in _INTEGER_OPS for node in graph.node),
        wide_integer=any(t.data_type in (onnx.TensorProto.INT16, onnx.TensorProto.UINT16) for t in graph.initializer),
    )


def _bytes(value: onnx.ValueInfoProto) -> int:
    """A free dimension counts as one, as the pipeline runs models; of what is no tensor, nothing."""
    tensor = value.type.tensor_type
    if not tensor.elem_type:
        return 0
    count = 1
    for dimension in tensor.shape.dim:
        count *= max(dimension.dim_value, 1)
    name = onnx.helper.tensor_dtype_to_string(tensor.elem_type).rpartition(".")[2].lower()
    if name in _BITS:
        return count * _BITS[name] // 8
    return int(count * onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
