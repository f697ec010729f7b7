"""What a candidate really computes in integers, read from the file itself, not from what the recipe intended."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.records import FloatOps, Format

# Moving data between float and integer is the price of quantization, not work of the model.
_TFLITE_BOUNDARIES = frozenset({"QUANTIZE", "DEQUANTIZE"})
_ONNX_BOUNDARIES = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Cast"})
_ONNX_FUSED = frozenset({"Relu", "Clip", "LeakyRelu"})
_ONNX_INTEGER_OPS = frozenset(
    {"ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "QGemm", "DynamicQuantizeLSTM", "QAttention"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """`total` counts the model's own ops: each is `quantized`, `left_float`, or computes on integers by nature."""

    total: int
    quantized: dict[str, int]
    left_float: tuple[FloatOps, ...]


def coverage(format: Format, path: Path, why_float: Callable[[str], str]) -> Coverage:
    """Count ops by whether they compute on quantized data."""
    read = {"tflite": _tflite, "onnx": _onnx, "pt": _torchscript}[format]
    return read(path, why_float)


def _tflite(path: Path, why_float: Callable[[str], str]) -> Coverage:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    integer = {schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16, schema.TensorType.INT4}
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    quantized: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    total = 0
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
            name = code.customCode.decode() if code.customCode else names.get(builtin, f"OP_{builtin}")
            if name in _TFLITE_BOUNDARIES:
                continue
            total += 1
            tensors = [graph.tensors[i] for i in (*operator.inputs, *operator.outputs) if i >= 0]
            if any(tensor.type in integer and _has_scale(tensor) for tensor in tensors):
                quantized[name] += 1
            elif any(tensor.type == schema.TensorType.FLOAT32 for tensor in tensors):
                floating[name] += 1
    return Coverage(total=total, quantized=dict(sorted(quantized.items())), left_float=_reasons(floating, why_float))


def _has_scale(tensor: Any) -> bool:
    return (
        tensor.quantization is not None and tensor.quantization.scale is not None and len(tensor.quantization.scale) > 0
    )


def _onnx(path: Path, why_float: Callable[[str], str]) -> Coverage:
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    integer = onnx_integer_nodes(graph)
    quantized: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    total = 0
    for node in graph.node:
        if node.op_type in _ONNX_BOUNDARIES or node.op_type == "Constant":
            continue
        total += 1
        if node.op_type in _ONNX_INTEGER_OPS or node.output[0] in integer:
            quantized[node.op_type] += 1
        else:
            floating[node.op_type] += 1
    return Coverage(total=total, quantized=dict(sorted(quantized.items())), left_float=_reasons(floating, why_float))


def _torchscript(path: Path, why_float: Callable[[str], str]) -> Coverage:
    from pipeline.runtimes.torch import ops_of

    quantized: Counter[str] = Counter()
    floating: Counter[str] = Counter()
    for name, integer in ops_of(path):
        (quantized if integer else floating)[name] += 1
    total = quantized.total() + floating.total()
    return Coverage(total=total, quantized=dict(sorted(quantized.items())), left_float=_reasons(floating, why_float))


def onnx_integer_nodes(graph: Any) -> set[str]:
    """First outputs of the nodes between a DequantizeLinear and a QuantizeLinear: those a runtime runs in integers.

    What only reads dequantized data is a float op. An activation between its convolution and the QuantizeLinear belongs
    to the convolution.
    """
    producers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: set[str] = set()
    for node in graph.node:
        source = producers.get(node.input[0]) if node.input else None
        if source is None or source.op_type != "DequantizeLinear" or node.op_type == "QuantizeLinear":
            continue
        following = readers.get(node.output[0], [])
        fused = following[0] if len(following) == 1 and following[0].op_type in _ONNX_FUSED else None
        if fused is not None:
            following = readers.get(fused.output[0], [])
        if following and all(reader.op_type == "QuantizeLinear" for reader in following):
            found |= {node.output[0], fused.output[0]} if fused is not None else {node.output[0]}
    return found


def _reasons(floating: Counter[str], why_float: Callable[[str], str]) -> tuple[FloatOps, ...]:
    return tuple(FloatOps(op=op, count=count, reason=why_float(op)) for op, count in sorted(floating.items()))
