"""What the parent and the worker tell each other in a search."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.quality import MetricScore
from pipeline.records import Format
from pipeline.samples import DataSpec
from targets.records import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """The files that every job of one search works with."""

    recipe: str
    format: Format
    float_model: Path
    ranges: Path
    calibrate: DataSpec
    inputs: tuple[TensorSpec, ...]
    base: Path
    folder: Path  # of this search alone: its samples, float answers, and the mix at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The float source's own scores on the samples that the search looks at."""

    scores: Mapping[str, MetricScore]
    samples: int
    of: int  # samples the test set has


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One mix on the kept samples. `scores` are over the first `samples` of them."""

    size_bytes: int
    int8_share: float  # of the compute, read from the file
    scores: Mapping[str, MetricScore]
    fidelity: Mapping[str, float]
    per_sample: Mapping[str, tuple[float, ...]]  # of the fidelities that a loss may be limited of
    samples: int
    first_s: float  # of one inference on this host
    too_slow: bool
