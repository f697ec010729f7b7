"""What a model file asks of a runtime, read from its bytes without loading it."""

import struct
from collections.abc import Iterator

from pipeline.appcheck import wire
from pipeline.appcheck.app import Malformed, ModelFormat, OnnxNeeds, OrtNeeds, TfliteNeeds

_MOST_CODES = 10_000  # operator codes of one model; the largest seen has 60
_MOST_TEXT = 4096
_MOST_METADATA = 1000
_TFLITE_MAGIC, _ORT_MAGIC = b"TFL3", b"ORTM"
_ONNX = ("", "ai.onnx")  # two names of one domain
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


class _Table:
    """A flatbuffer's table: fields by number. Reference: https://flatbuffers.dev/internals/"""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        (back,) = _read("<i", data, at)
        self._fields_at = at - back
        (self._size,) = _read("<H", data, self._fields_at)

    def _place(self, number: int) -> int:
        slot = 4 + 2 * number
        if slot + 2 > self._size:
            return 0
        (offset,) = _read("<H", self._data, self._fields_at + slot)
        return self._at + int(offset) if offset else 0

    def number(self, number: int, layout: str, default: int) -> int:
        place = self._place(number)
        return int(_read(layout, self._data, place)[0]) if place else default

    def item(self, number: int, index: int) -> "_Table | None":
        start, count = self._vector(number)
        return _Table(self._data, _target(self._data, start + 4 * index)) if index < count else None

    def tables(self, number: int, most: int) -> "list[_Table]":
        start, count = self._vector(number)
        if count > most:
            raise Malformed(f"a list of {count}")
        return [_Table(self._data, _target(self._data, start + 4 * place)) for place in range(count)]

    def bytes(self, number: int) -> bytes:
        start, count = self._vector(number)
        if count > _MOST_TEXT:
            raise Malformed(f"a text of {count} bytes")
        return self._data[start : start + count]

    def text(self, number: int) -> str:
        return self.bytes(number).decode("utf-8", "replace").rstrip("\0")

    def _vector(self, number: int) -> tuple[int, int]:
        place = self._place(number)
        if not place:
            return 0, 0
        start = _target(self._data, place)
        (count,) = _read("<I", self._data, start)
        return start + 4, int(count)


def _tflite(data: bytes) -> TfliteNeeds:
    if not is_tflite(data[:8]):
        raise Malformed("is no TFLite model: the mark TFL3 is missing")
    model = _Table(data, _target(data, 0))
    ops, custom = set(), set()
    for code in model.tables(1, _MOST_CODES):
        # Codes above 127 stand in the newer field only; older files have the old field only.
        builtin = max(code.number(0, "<b", 0), code.number(3, "<i", 0))
        if builtin == _CUSTOM:
            custom.add(code.text(1))
        else:
            ops.add((builtin, code.number(2, "<i", 1)))
    return TfliteNeeds(ops=tuple(sorted(ops)), custom=tuple(sorted(custom)), min_runtime=_min_runtime(model))


def _min_runtime(model: _Table) -> str:
    for entry in model.tables(6, _MOST_METADATA):
        if entry.text(0) == _MIN_RUNTIME:
            buffer = model.item(4, entry.number(1, "<I", 0))
            return buffer.text(0) if buffer else ""
    return ""


def _onnx(data: bytes) -> OnnxNeeds:
    ir = opset = 0
    imported, used, own = set[str](), set[str](), set[str]()
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
        elif number == 7 and not isinstance(value, int):
            used |= set(_domains(value, 0))
        elif number == 25 and not isinstance(value, int):  # a function of the model's own defines what it names
            used |= {wire.text(node) for part in wire.messages(value, 7) for node in wire.messages(part, 7)}
            own |= {wire.text(domain) for domain in wire.messages(value, 10)}
    if not ir or not imported:
        raise Malformed("is no ONNX model: it has no IR version or no opset")
    domains = used - own - set(_ONNX)
    return OnnxNeeds(ir=ir, opset=opset, domains=tuple(sorted(domains)))


def _domains(graph: memoryview, depth: int) -> Iterator[str]:
    """The domain of each node, and of those in the graphs inside it: opset_import often lists more than is used."""
    if depth > _DEEPEST:
        raise Malformed("graphs too deep in one another")
    for node in wire.messages(graph, 1):
        for number, value in wire.fields(node):
            if number == 7:
                yield wire.text(value)
            elif number == 5 and not isinstance(value, int):
                for field, inner in wire.fields(value):
                    if field in (6, 11) and not isinstance(inner, int):  # AttributeProto's g and graphs
                        yield from _domains(inner, depth + 1)


def _ort(data: bytes) -> OrtNeeds:
    if data[4:8] != _ORT_MAGIC:
        raise Malformed("is no ORT model: the mark ORTM is missing")
    return OrtNeeds(version=_Table(data, _target(data, 0)).text(0))


def _read(layout: str, data: bytes, at: int) -> tuple[int, ...]:
    if at < 0:  # struct would count from the end
        raise Malformed("an offset before the file's start")
    return struct.unpack_from(layout, data, at)


def _target(data: bytes, at: int) -> int:
    """Where the offset at `at` leads; a table or vector lies behind it."""
    (offset,) = _read("<I", data, at)
    return at + int(offset)
