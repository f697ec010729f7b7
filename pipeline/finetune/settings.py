"""What the host tells the worker about training; imports no framework."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to train; what deploy.yaml says of it."""

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    held_out: float  # share of the samples that only say when to stop
    seed: int
