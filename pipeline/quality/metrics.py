"""Task metrics: how good the answers are against the truth. The seam, its table, and how deploy.yaml names them."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from pipeline.errors import InputError, UsageError
from pipeline.records import MetricValue
from pipeline.samples.user_function import is_function_reference

METRICS: Mapping[str, str] = {
    "top1": "pipeline.quality.classification:Top1",
    "top5": "pipeline.quality.classification:Top5",
    "psnr": "pipeline.quality.image:Psnr",
    "psnr-y": "pipeline.quality.image:PsnrY",
    "ssim": "pipeline.quality.image:Ssim",
    "bits_per_char": "pipeline.quality.text:BitsPerChar",
    "perplexity": "pipeline.quality.text:Perplexity",
}

Better = Literal["higher", "lower"]
Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricScore:
    """A metric over a set. `per_sample` is empty when the metric has no value for one sample."""

    value: float
    better: Better
    unit: str
    per_sample: tuple[float, ...]


class Metric(Protocol):
    """One metric, fed sample by sample. Built from its options as keywords."""

    def update(self, outputs: Outputs, truth: NDArray[Any] | None) -> None:
        """Take in one sample: real-valued outputs with a batch axis of 1, truth without. InputError if it cannot."""
        ...

    def result(self) -> dict[str, MetricScore]:
        """Return the scores over all samples so far, by metric name; every value is finite."""
        ...


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BuiltinMetric(_Model):
    """A metric of the table with options; each metric takes its own and refuses the others."""

    name: str
    output: str | None = None  # which of several outputs
    data_range: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # psnr, psnr-y, ssim
    scores: Literal["auto", "probabilities", "logits"] | None = None  # bits_per_char, perplexity


class UserMetric(_Model):
    """A function `file.py:name(outputs, truth)` of the user's."""

    path: str
    better: Better = "higher"
    unit: str = ""


MetricSpec = Annotated[
    Annotated[str, Tag("name")] | Annotated[BuiltinMetric, Tag("builtin")] | Annotated[UserMetric, Tag("user")],
    Discriminator(
        lambda value: (
            "name"
            if isinstance(value, str)
            else "user"
            if isinstance(value, UserMetric) or (isinstance(value, dict) and "path" in value)
            else "builtin"
        )
    ),
]


class Metrics:
    """Several metrics fed at once; errors name the sample."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = tuple(metrics)

    def update(self, sample: str, outputs: Outputs, truth: NDArray[Any] | None) -> None:
        """Feed one sample to every metric; InputError names the sample."""
        for metric in self._metrics:
            try:
                metric.update(outputs, truth)
            except InputError as error:
                raise InputError(f"{sample}: {error.message}", hint=error.hint) from error

    def result(self) -> dict[str, MetricScore]:
        """Return all scores by name; UsageError when two metrics give the same name."""
        scores: dict[str, MetricScore] = {}
        for metric in self._metrics:
            for name, score in metric.result().items():
                if name in scores:
                    raise UsageError(f"metrics: two of them are called {name!r}", hint="remove or rename one")
                scores[name] = score
        return scores


def open_metrics(specs: Sequence[MetricSpec], base: Path) -> Metrics:
    """Make fresh metrics, one set per candidate; UsageError for an unknown name or an option a metric has not."""
    return Metrics([_open(spec, base) for spec in specs])


def compare(candidate: Mapping[str, MetricScore], reference: Mapping[str, MetricScore]) -> dict[str, MetricValue]:
    """Set the candidate's scores beside the float source's, by metric name.

    Raises InputError when one has a metric the other has not, as a function of the user's may do.
    """
    if candidate.keys() != reference.keys():
        odd = ", ".join(sorted(candidate.keys() ^ reference.keys()))
        raise InputError(f"metrics: {odd} came for only one of two models", hint="return the same names every time")
    return {
        name: MetricValue(value=score.value, reference=reference[name].value, better=score.better, unit=score.unit)
        for name, score in candidate.items()
    }


def one_output(outputs: Outputs, wanted: str, metric: str) -> NDArray[Any]:
    """Return the output a metric reads without its batch axis; InputError when it cannot be told which."""
    if wanted and wanted not in outputs:
        raise InputError(f"{metric}: there is no output {wanted!r}", hint=f"there are {', '.join(outputs)}")
    if not wanted and len(outputs) != 1:
        raise InputError(
            f"{metric}: the model has {len(outputs)} outputs: {', '.join(outputs)}",
            hint=f"say which: {{name: {metric}, output: {next(iter(outputs), '…')}}}",
        )
    array = np.asarray(outputs[wanted] if wanted else next(iter(outputs.values())))
    if array.ndim == 0 or array.shape[0] != 1:
        raise InputError(f"{metric}: the output is {list(array.shape)}", hint="metrics take a batch axis of 1 in front")
    return np.asarray(array[0])


def needed(truth: NDArray[Any] | None, metric: str) -> NDArray[Any]:
    """Return the truth; InputError when there is none."""
    if truth is None:
        raise InputError(
            f"{metric}: there is no truth to compare with", hint="add `truth` to `data`, or drop the metric"
        )
    return truth


def mean_score(values: Sequence[float], better: Better, unit: str = "") -> MetricScore:
    """Return the mean over samples; ValueError when there are none."""
    if not values:
        raise ValueError("no sample has been scored")
    return MetricScore(value=float(np.mean(values)), better=better, unit=unit, per_sample=tuple(values))


def _open(spec: MetricSpec, base: Path) -> Metric:
    if isinstance(spec, str) and is_function_reference(spec):
        spec = UserMetric(path=spec)
    if isinstance(spec, UserMetric):
        from .user import UserFunction  # numpy and the user's own imports only when it is asked for

        return UserFunction(path=spec.path, better=spec.better, unit=spec.unit, base=base)
    if isinstance(spec, str):
        spec = BuiltinMetric(name=spec)
    if spec.name not in METRICS:
        near = get_close_matches(spec.name, METRICS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(METRICS)}, and `file.py:function`"
        raise UsageError(f"metrics: unknown metric {spec.name!r}", hint=hint)
    module, _, name = METRICS[spec.name].partition(":")
    kind = getattr(import_module(module), name)
    options = spec.model_dump(exclude={"name"}, exclude_none=True)
    known = inspect.signature(kind).parameters
    for option in options:
        if option not in known:
            hint = f"it takes {', '.join(known)}"
            raise UsageError(f"metrics: {spec.name} has no option {option!r}", hint=hint)
    metric: Metric = kind(**options)
    return metric
