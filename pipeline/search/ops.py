"""The ops of a float model and the blocks they are searched in: same records for both formats, read by one module each.

A block is an op with weights and what follows it up to the next such op. Its parts have no precision of their own to
choose: a kernel fuses them, or they would only be a place to convert.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.plugins import load_plugin
from pipeline.records import Format

READERS: Mapping[Format, str] = {
    "tflite": "pipeline.search.litert_ops:read_ops",
    "onnx": "pipeline.search.onnx_ops:read_ops",
}
# More blocks than this are merged with their neighbours: probing one costs about half a second.
MAX_BLOCKS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One op. `name` is unique in its model and what a mixed recipe calls it."""

    name: str
    type: str
    reads: tuple[str, ...]  # activations only
    writes: tuple[str, ...]
    macs: int  # multiply-accumulates of one inference; 0 for what only moves or maps data
    quantizable: bool  # whether the back end has an integer form of it at all
    int8: bool  # it computes on 8-bit data already, as ops of a candidate do


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Ops that get one precision. `name` is that of the op with weights, or of the first."""

    name: str
    ops: tuple[str, ...]
    types: tuple[str, ...]
    output: str  # tensor at which its error is looked at
    macs: int


def read_ops(format: Format, model: Path) -> tuple[Op, ...]:
    """The ops of a float model in the order they run; imports its format's library."""
    found: tuple[Op, ...] = load_plugin(READERS[format])(model)
    return found


def blocks(ops: Sequence[Op], most: int = MAX_BLOCKS) -> tuple[Block, ...]:
    """Group ops into at most `most` blocks; ops with no integer form belong to none, they stay in float anyway.

    An op joins the block that made its first input, unless it has weights itself (then it starts one) or its inputs
    come from several blocks (then it starts one too: what joins two branches is often where precision is lost).
    """
    made_by: dict[str, int] = {}
    groups: list[list[Op]] = []
    for op in ops:
        if not op.quantizable:
            continue
        sources = {made_by[tensor] for tensor in op.reads if tensor in made_by}
        if op.macs or len(sources) != 1:
            groups.append([op])
            place = len(groups) - 1
        else:
            [place] = sources
            groups[place].append(op)
        made_by |= dict.fromkeys(op.writes, place)
    while len(groups) > most:
        # The two neighbours with the least compute between them.
        first = min(range(len(groups) - 1), key=lambda i: _macs(groups[i]) + _macs(groups[i + 1]))
        groups[first : first + 2] = [groups[first] + groups[first + 1]]
    return tuple(_block(group) for group in groups)


def compute_shares(ops: Sequence[Op]) -> dict[str, float]:
    """Op name -> its share of the model's multiply-accumulates (of its ops, when it has none of those)."""
    total = sum(op.macs for op in ops)
    return {op.name: op.macs / total if total else 1 / len(ops) for op in ops}


def int8_share(ops: Sequence[Op]) -> float:
    """Share of the compute that a candidate's own file does in int8."""
    shares = compute_shares(ops) if ops else {}
    return sum(shares[op.name] for op in ops if op.int8)


def _macs(group: Sequence[Op]) -> int:
    return sum(op.macs for op in group)


def _block(group: Sequence[Op]) -> Block:
    heaviest = max(group, key=lambda op: op.macs)
    return Block(
        name=heaviest.name,
        ops=tuple(op.name for op in group),
        types=tuple(dict.fromkeys(op.type for op in group)),
        output=group[-1].writes[0],
        macs=_macs(group),
    )
