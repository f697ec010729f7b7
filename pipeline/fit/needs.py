"""What a model file asks of a runtime, read from its bytes without loading it."""

import struct
from collections.abc import Iterator

from pipeline.fit import flatbuffer, tflite_graph, wire
from pipeline.fit.op_versions import needed_version
from pipeline.fit.records import Malformed, ModelFormat, OnnxNeeds, OrtNeeds, TfliteNeeds

_MOST_METADATA = 1000
_TFLITE_MAGIC, _ORT_MAGIC = b"TFL3", b"ORTM"
_ONNX = ("", "ai.onnx")  # two names of one domain
_ML = "ai.onnx.ml"
_DEEPEST = 50  # graphs inside one another
_CUSTOM = 32  # BuiltinOperator.CUSTOM
_MIN_RUNTIME = "min_runtime_version"


def needs_of(format: ModelFormat, data: bytes) -> TfliteNeeds | OnnxNeeds | OrtNeeds:
    """The needs of a model. Raises Malformed."""
    try:
        if format == "tflite":
            return _tflite(data)
        return _onnx(data) if format == "onnx" else _ort(data)
    except (struct.error, IndexError, OverflowError, UnicodeDecodeError) as error:
        raise Malformed(f"is no whole {format} model ({error})") from error


def is_tflite(head: bytes) -> bool:
    return head[4:8] == _TFLITE_MAGIC


def _tflite(data: bytes) -> TfliteNeeds:
    if not is_tflite(data[:8]):
        raise Malformed("is no TFLite model: the mark TFL3 is missing")
    model = flatbuffer.root(data)
    known = tflite_graph.codes(model)
    written = {(code.builtin, code.version) for code in known if code.builtin != _CUSTOM}
    needed: set[tuple[int, int]] = set()
    newest = 0
    for graph in tflite_graph.graphs(model):
        newest = max([newest, *(tensor.type for tensor in graph.tensors)])
        for operator in graph.operators:
            code = known[operator.code]
            version = needed_version(code.builtin, graph.types(operator.inputs), graph.types(operator.outputs))
            if code.builtin != _CUSTOM and version > code.version:
                needed.add((code.builtin, version))
    return TfliteNeeds(
        ops=tuple(sorted(written | needed)),
        custom=tuple(sorted({code.custom for code in known if code.builtin == _CUSTOM})),
        min_runtime=_min_runtime(model),
        unstamped=tuple(sorted({code for code, _ in needed})),
        tensor_type=newest,
    )


def _min_runtime(model: flatbuffer.Table) -> str:
    for entry in model.tables(6, _MOST_METADATA):
        if entry.text(0) == _MIN_RUNTIME:
            buffer = model.item(4, entry.number(1, "<I", 0))
            return buffer.text(0) if buffer else ""
    return ""


def _onnx(data: bytes) -> OnnxNeeds:
    ir = opset = ml = 0
    imported, own = set[str](), set[str]()
    used = set[tuple[str, str]]()
    for number, value in wire.fields(data):
        if number == 1:
            ir = wire.number(value)
        elif number == 8 and not isinstance(value, int):
            domain, version = "", 0
            for field, part in wire.fields(value):
                if field == 1:
                    domain = wire.text(part)
                elif field == 2:
                    version = wire.number(part)
            imported |= {domain}
            if domain in _ONNX:
                opset = version
            elif domain == _ML:
                ml = version
        elif number == 7 and not isinstance(value, int):
            used |= set(_nodes(value, 0))
        elif number == 25 and not isinstance(value, int):  # a function of the model's own defines what it names
            used |= {_node(node) for node in wire.messages(value, 7)}
            own |= {wire.text(domain) for domain in wire.messages(value, 10)}
    if not ir or not imported:
        raise Malformed("is no ONNX model: it has no IR version or no opset")
    foreign = {(domain, op) for domain, op in used if domain not in own and domain not in _ONNX}
    return OnnxNeeds(
        ir=ir,
        opset=opset,
        domains=tuple(sorted({domain for domain, _ in foreign})),
        ops=tuple(sorted(f"{domain}.{op}" for domain, op in foreign)),
        ml=ml,
    )


def _node(node: memoryview) -> tuple[str, str]:
    """Domain and type; those of no domain are ONNX's own."""
    texts = {
        number: wire.text(value)
        for number, value in wire.fields(node)
        if number in (4, 7) and not isinstance(value, int)
    }
    return texts.get(7, ""), texts.get(4, "")


def _nodes(graph: memoryview, depth: int) -> Iterator[tuple[str, str]]:
    """Each node, and those in the graphs inside it: opset_import often lists more domains than are used."""
    if depth > _DEEPEST:
        raise Malformed("graphs too deep in one another")
    for node in wire.messages(graph, 1):
        yield _node(node)
        for number, value in wire.fields(node):
            if number == 5 and not isinstance(value, int):
                for field, inner in wire.fields(value):
                    if field in (6, 11) and not isinstance(inner, int):  # AttributeProto's g and graphs
                        yield from _nodes(inner, depth + 1)


def _ort(data: bytes) -> OrtNeeds:
    if data[4:8] != _ORT_MAGIC:
        raise Malformed("is no ORT model: the mark ORTM is missing")
    return OrtNeeds(version=flatbuffer.root(data).text(0))
