"""Whether the ranking of blocks holds for the task: the worst are mended one at a time, and the metric is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.records import BlockError, Format, Precision, Trial
from pipeline.search.strategy import Mix


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Of one metric against the float source, with its 95 % interval over the samples."""

    metric: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """All blocks in int8 but this one, really made and really run."""

    block: str
    precision: Precision
    losses: tuple[Loss, ...]
    sqnr_db: float  # at the model's outputs
    refused: str = ""  # why it could not be made


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """`int8`: what all blocks in int8 lose together; then the worst blocks, in the order of the ranking."""

    format: Format
    samples: int
    int8: tuple[Loss, ...]
    int8_sqnr_db: float
    blocks: tuple[Mended, ...]


def confirmed(format: Format, ranking: Sequence[BlockError], most: int, judge: Callable[[Mix], Trial]) -> Confirmed:
    """Ask for the `most` blocks that lose most; one that cannot be int8 stays in float throughout."""
    precisions: dict[str, Precision] = {error.block: "int8" for error in ranking if not error.refused}
    together = judge(Mix(name="int8", precisions=precisions))
    worst = [error for error in ranking if not error.refused and error.loss_share > 0][:most]
    mended = []
    for error in worst:
        fix = error.fix or "float32"
        trial = judge(Mix(name=f"{error.block} in {fix}", precisions={**precisions, error.block: fix}))
        mended.append(
            Mended(
                block=error.block,
                precision=fix,
                losses=_losses(trial),
                sqnr_db=trial.sqnr_db,
                refused=trial.reason if trial.verdict == "refused" else "",
            )
        )
    return Confirmed(
        format=format,
        samples=together.samples,
        int8=_losses(together),
        int8_sqnr_db=together.sqnr_db,
        blocks=tuple(mended),
    )


def _losses(trial: Trial) -> tuple[Loss, ...]:
    return tuple(Loss(metric=drop.metric, value=drop.value, low=drop.low, high=drop.high) for drop in trial.drops)
