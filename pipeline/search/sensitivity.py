"""From the error of each block alone to a ranking with each block's share of the loss. Pure.

Errors of blocks are nearly independent of each other, so their powers at the output add up; a block's share of the
sum is its share of the loss. What the sum misses is what `int8_sqnr_db`, measured, shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.records import BlockError, Precision
from pipeline.search.ops import Block

Cause = Literal["activations", "weights", ""]
# Of the error's power: 1 %, and a half.
HARMLESS_DB = 20.0
_HALF_DB = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One block in one precision, all else float: SQNR in dB at its own output and at the model's."""

    op_sqnr_db: float
    output_sqnr_db: float
    refused: str = ""


def ranked(blocks: Sequence[Block], probes: Mapping[str, Probe], macs_total: int) -> tuple[BlockError, ...]:
    """The blocks, those that cannot be int8 first, then by what they lose."""
    powers = {block.name: 0.0 if probes[block.name].refused else noise(probes[block.name]) for block in blocks}
    total = sum(powers.values())
    found = [
        BlockError(
            block=block.name,
            ops=block.ops,
            types=block.types,
            place=place,
            compute_share=block.macs / macs_total if macs_total else 1 / len(blocks),
            op_sqnr_db=probes[block.name].op_sqnr_db,
            output_sqnr_db=probes[block.name].output_sqnr_db,
            loss_share=powers[block.name] / total if total else 0.0,
            refused=probes[block.name].refused,
        )
        for place, block in enumerate(blocks)
    ]
    return tuple(sorted(found, key=lambda error: (not error.refused, -error.loss_share)))


def noise(probe: Probe) -> float:
    """Error power at the output, relative to the signal's; at most 1: an answer that is all wrong cannot be worse."""
    return min(1.0, float(10 ** (-probe.output_sqnr_db / 10)))


def explained(error: BlockError, wide: Probe, fixes: Mapping[Precision, Probe]) -> BlockError:
    """The block with what is too coarse in it, and the cheapest fix.

    Args:
        wide: the block with 16-bit activations and 8-bit weights. When that takes away most of the error, activations
            were it: another range method or 16 bits help. Else weights were: equalisation or bias correction may.
        fixes: tried precisions, the cheapest first. The first that takes away 99 % of the error is the fix, else the
            best.
    """
    usable = {precision: probe for precision, probe in fixes.items() if not probe.refused}
    good = [p for p, probe in usable.items() if probe.output_sqnr_db >= error.output_sqnr_db + HARMLESS_DB]
    best = max(usable, key=lambda p: usable[p].output_sqnr_db, default=None)
    fix = good[0] if good else best
    if error.refused or fix is None or usable[fix].output_sqnr_db <= error.output_sqnr_db:
        return error
    half = error.output_sqnr_db + _HALF_DB
    # A block without weights has nothing else that could be coarse.
    coarse = error.compute_share == 0 or wide.output_sqnr_db >= half
    cause: Cause = "activations" if coarse else "" if wide.refused else "weights"
    return replace(error, cause=cause, fix=fix, fix_sqnr_db=usable[fix].output_sqnr_db)
