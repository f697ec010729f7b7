"""Whether a model file is quantized already, and by what one can tell. Reads the file's bytes and loads nothing.

Quantizing such a file again would add a second error to the first; it is deployed as it is, or its float model is.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.fit import flatbuffer, wire
from pipeline.fit.flatbuffer import Table
from pipeline.fit.records import Malformed
from pipeline.records import Format

# Ops that only a quantized graph has; onnxruntime's own QLinearAdd, QLinearConcat … are told by their beginning.
_ONNX_OPS = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "GatherBlockQuantized",
        "MatMulBnb4",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QGemm",
        "QuantizeLinear",
    }
)
# TensorProto.DataType and schema.fbs TensorType: what weights may be stored in besides float32.
_ONNX_HALVES = {10: "float16 weights", 16: "bfloat16 weights"}
_ONNX_INTEGERS = {2: "uint8 weights", 3: "int8 weights", 21: "uint4 weights", 22: "int4 weights"}
_TFLITE_INTEGERS = {3: "uint8", 7: "int16", 9: "int8", 17: "int4"}
_TFLITE_FLOAT16 = 1
_LEAST_WEIGHTS = 256  # fewer integers in a matrix are a table of the model's own (classes, offsets), not weights
_DEEPEST = 50  # graphs inside one another
_MOST_PARTS = 1_000_000  # tensors and buffers; the largest graphs have 100,000


def marks(format: Format, path: Path) -> tuple[str, ...]:
    """What shows that the model is quantized, such as `MatMulInteger` or `int8 tensors`; empty for a float model, and
    for a file that cannot be read as one (its loader says why)."""
    if not path.stat().st_size:
        return ()
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    found = _tflite if format == "tflite" else _onnx
    try:
        return tuple(sorted(set(found(data))))
    except (Malformed, struct.error, IndexError, OverflowError, UnicodeDecodeError):
        return ()


def _onnx(data: mmap.mmap) -> Iterator[str]:
    for graph in wire.messages(memoryview(data), 7):
        yield from _onnx_graph(graph, 0)


def _onnx_graph(graph: memoryview, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise Malformed("graphs too deep in one another")
    for number, part in wire.fields(graph):
        if number == 1 and not isinstance(part, int):
            for field, value in wire.fields(part):
                if field == 4 and (op := wire.text(value)) and (op in _ONNX_OPS or op.startswith("QLinear")):
                    yield op
                elif field == 5 and not isinstance(value, int):
                    for kind, inner in wire.fields(value):
                        if kind in (6, 11) and not isinstance(inner, int):  # AttributeProto's g and graphs
                            yield from _onnx_graph(inner, depth + 1)
        elif number == 5 and not isinstance(part, int):
            yield from _onnx_weight(part)


def _onnx_weight(tensor: memoryview) -> Iterator[str]:
    sizes, kind = list[int](), 0
    for number, value in wire.fields(tensor):
        if number == 1:  # dims: packed by most writers, one by one by others
            sizes += [value] if isinstance(value, int) else _packed(value)
        elif number == 2:
            kind = wire.number(value)
    elements = 1
    for size in sizes:
        elements *= size
    if elements >= _LEAST_WEIGHTS and len(sizes) > 1:
        known = {**_ONNX_HALVES, **_ONNX_INTEGERS}
        if kind in known:
            yield known[kind]


def _packed(data: memoryview) -> list[int]:
    numbers, value, shift = list[int](), 0, 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift = shift + 7 if byte >= 0x80 else 0
        if byte < 0x80:
            numbers.append(value)
            value = 0
    return numbers


def _tflite(data: mmap.mmap) -> Iterator[str]:
    model = flatbuffer.root(data)
    filled = [buffer.count(0) > 0 for buffer in model.tables(4, _MOST_PARTS)]
    for graph in model.tables(2, _MOST_PARTS):
        for tensor in graph.tables(0, _MOST_PARTS):
            kind = tensor.number(1, "<b", 0)
            if kind == _TFLITE_FLOAT16 and filled[tensor.number(2, "<I", 0)]:
                yield "float16 weights"
            elif kind in _TFLITE_INTEGERS and _has_scale(tensor):
                yield f"{_TFLITE_INTEGERS[kind]} tensors"


def _has_scale(tensor: Table) -> bool:
    quantization = tensor.table(4)
    return quantization is not None and quantization.count(2) > 0
