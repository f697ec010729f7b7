"""The protocol of a model to be fine-tuned, whatever framework it is of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.errors import ConversionFailed
from pipeline.finetune.settings import TRAINEES, Origin
from pipeline.finetune.training import Array, Network
from pipeline.plugins import load_plugin

Ranges = Mapping[str, tuple[float, float]]


class Trainee(Protocol):
    """A model with fake quantization around its ops. Ranges go by the names of what learns them."""

    sample_bytes: int  # of all tensors of one sample
    weight_bytes: int  # of all trained weights
    batch: int | None  # how many samples a call takes, where the model fixes that
    untrained: tuple[str, ...]  # layers with weights that stay as they are

    def __init__(self, origin: Origin, weight_bits: int) -> None:
        """Raises ConversionFailed when it cannot be trained."""

    def joined(self, rows: Sequence[Array]) -> Array:
        """One input of all samples, samples along the first axis."""

    def network(self, *, loss: str, base: Path, truths: Array | None, calibrated: Ranges) -> Network:
        """What the loop trains; `calibrated` are ranges to begin with."""

    def seen(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What each tensor with a learned range holds in float for one sample."""

    def settle(self) -> Ranges:
        """Put the weights on their grids for good, and give the ranges that were learned."""

    def save(self, first: Mapping[str, Array]) -> dict[str, Array]:
        """Write `scratch`/model as `prepare` does, and give its answer on the sample."""


def open_trainee(origin: Origin, weight_bits: int) -> Trainee:
    """The trainee for the kind of source.

    Raises:
        ConversionFailed: it cannot be trained.
    """
    free = {spec.name: list(spec.shape) for spec in origin.inputs if -1 in spec.shape}
    if free:
        said = ", ".join(f"{name} {shape}" for name, shape in free.items())
        raise ConversionFailed(
            f"fine-tuning takes fixed shapes, and these inputs leave dimensions free: {said}",
            hint="give a size for each in source.inputs",
        )
    made: Trainee = load_plugin(TRAINEES[origin.kind])(origin, weight_bits)
    return made
