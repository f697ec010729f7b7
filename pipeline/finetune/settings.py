"""What the host tells the worker about training; imports no framework."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.records import Format
from targets.records import TensorSpec

# Kind of source -> the class that trains it. Other kinds are files of graphs that were made to compute, not to learn.
TRAINEES: Mapping[str, str] = {
    "keras": "pipeline.finetune.keras.trainee:KerasTrainee",
    "keras_h5": "pipeline.finetune.keras.trainee:KerasTrainee",
    "pytorch": "pipeline.finetune.torch.trainee:TorchTrainee",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train; what deploy.yaml says of it."""

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    held_out: float  # share of the samples that only say when to stop
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where the model comes from: the user's file, what `prepare` saved of it, and what is needed to load the first."""

    kind: str
    model: Path
    factory: str
    base: Path
    prepared: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    scratch: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A float export of the source as it was given, and its ranges; `merged` with those of other samples."""

    format: Format
    model: Path
    ranges: Path
    merged: bool
    budget_bytes: int
