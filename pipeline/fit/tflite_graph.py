"""The graphs of a `.tflite` file: operators, and tensors without contents. Numbers are those of TFLite's schema."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.fit.flatbuffer import Table
from pipeline.fit.records import Malformed

FLOAT32, INT16, INT8, UINT8, INT4, INT2 = 0, 7, 9, 3, 17, 19
_MOST_GRAPHS = 10_000
_MOST_TENSORS = _MOST_OPERATORS = 1_000_000
_MOST_DIMENSIONS = 100
_MOST_CODES = 10_000  # operator codes of one model; the largest seen has 60
_BLOCKWISE = 2  # QuantizationDetails.BlockwiseQuantization
# Bytes of an element by type; types of less than a byte in eighths would be wrong by nothing that matters.
_BYTES = {0: 4, 1: 2, 2: 4, 4: 8, 7: 2, 8: 8, 10: 8, 11: 16, 12: 8, 15: 4, 16: 2, 18: 2, INT4: 0.5, INT2: 0.25, 20: 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """`scales`: how many it is quantized by; more than one is per channel."""

    shape: tuple[int, ...]
    type: int
    buffer: int
    constant: bool
    variable: bool
    scales: int
    blockwise: bool

    @property
    def size_bytes(self) -> int:
        count = 1
        for size in self.shape:
            count *= max(size, 1)
        return int(count * _BYTES.get(self.type, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """`code` is a place in the model's operator codes."""

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]

    def types(self, places: Sequence[int]) -> list[Tensor | None]:
        """The tensors at places; an optional one that is left out is None."""
        return [self.tensors[place] if 0 <= place < len(self.tensors) else None for place in places]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """An operator code: `builtin` 32 is a custom one."""

    builtin: int
    version: int
    custom: str


def codes(model: Table) -> list[Code]:
    found = []
    for code in model.tables(1, _MOST_CODES):
        # Codes above 127 stand in the newer field only; older files have the old field only.
        builtin = max(code.number(0, "<b", 0), code.number(3, "<i", 0))
        found.append(Code(builtin=builtin, version=code.number(2, "<i", 1), custom=code.text(1)))
    return found


def graphs(model: Table) -> Iterator[Graph]:
    """Every graph. Raises what `Table` raises."""
    filled = [buffer.count(0) > 0 or buffer.number(2, "<Q", 0) > 1 for buffer in model.tables(4, _MOST_TENSORS)]
    for graph in model.tables(2, _MOST_GRAPHS):
        operators = []
        for operator in graph.tables(3, _MOST_OPERATORS):
            operators.append(
                Operator(
                    code=operator.number(0, "<I", 0),
                    inputs=operator.numbers(1, _MOST_TENSORS),
                    outputs=operator.numbers(2, _MOST_TENSORS),
                )
            )
        yield Graph(
            tensors=tuple(_tensor(tensor, filled) for tensor in graph.tables(0, _MOST_TENSORS)),
            inputs=graph.numbers(1, _MOST_TENSORS),
            outputs=graph.numbers(2, _MOST_TENSORS),
            operators=tuple(operators),
        )


def _tensor(tensor: Table, filled: Sequence[bool]) -> Tensor:
    buffer = tensor.number(2, "<I", 0)
    if buffer >= max(len(filled), 1):
        raise Malformed("a tensor without its buffer")
    quantization = tensor.table(4)
    return Tensor(
        shape=tensor.numbers(0, _MOST_DIMENSIONS),
        type=tensor.number(1, "<b", 0),
        buffer=buffer,
        constant=bool(filled) and filled[buffer],
        variable=bool(tensor.number(5, "<b", 0)),
        scales=quantization.count(2) if quantization else 0,
        blockwise=quantization is not None and quantization.number(4, "<B", 0) == _BLOCKWISE,
    )
