"""The protocol of a source model. Implementations are used inside the worker process only."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.errors import InputError, MissingExtra
from pipeline.plugins import load_plugin
from targets.records import TensorSpec

Arrays = Mapping[str, np.ndarray[Any, Any]]


class Source(Protocol):
    """A trained model in its own framework.

    `inputs` and `outputs` carry -1 for dimensions the model leaves free.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    tools: Mapping[str, str]

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Bind the free input dimensions, except those of -1; called once, before `run` and `save`."""

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """The framework's own answer for one sample, arrays with the batch axis."""

    def save(self, path: Path) -> None:
        """Write the shape-fixed model as one file from which the exports are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unstated:
    """What a source is told that declares no inputs (PyTorch), or may be weights alone."""

    base: Path  # folder of deploy.yaml
    factory: str  # function that makes the model for a file of weights
    shapes: Mapping[str, tuple[int, ...]]  # source.inputs
    first_sample: Callable[[Sequence[str]], Arrays]  # input names -> first calibration sample, without batch axis


def open_source(kind: str, path: Path, *, signature: str, scratch: Path, unstated: Unstated | None = None) -> Source:
    """Load the model with the class registered for `kind`; `unstated` for those that may need more than their file.

    Raises:
        MissingExtra: the framework is not installed.
        InputError: the framework cannot load the file, or the model has something we refuse by name.
    """
    from pipeline.exporters import EXPORTERS, WITH_FACTORY

    try:
        reader = load_plugin(EXPORTERS[kind])
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in {"tensorflow", "keras", "tf2onnx", "h5py"}:
            raise missing_tensorflow(error.name, f"reading {path.name}") from None
        if error.name and error.name.split(".")[0] == "torch":
            raise missing_torch(error.name, f"reading {path.name}") from None
        raise
    if unstated and unstated.factory and kind not in WITH_FACTORY:
        raise InputError(
            f"{path}: source.factory builds a model for a file of weights, this is a {kind} source", hint="leave it out"
        )
    more = {"unstated": unstated} if kind in WITH_FACTORY else {}
    source: Source = reader(path, signature=signature, scratch=scratch, **more)
    return source


def missing_tensorflow(module: str, purpose: str) -> MissingExtra:
    """The error for an absent TensorFlow part, with the line that installs it."""
    return MissingExtra(
        f"{purpose} needs {module}, which is not installed", hint="pip install 'edge-deploy-pipeline[tensorflow]'"
    )


def missing_torch(module: str, purpose: str) -> MissingExtra:
    """The same for a part of PyTorch."""
    return MissingExtra(
        f"{purpose} needs {module}, which is not installed", hint="pip install 'edge-deploy-pipeline[torch]'"
    )


def bound_shapes(
    model: str, inputs: Sequence[TensorSpec], asked: Mapping[str, Sequence[int]], first: Arrays | None
) -> dict[str, tuple[int, ...]]:
    """The shape of every input: as asked in deploy.yaml, where -1 leaves a dimension free, else as the first sample.

    Raises:
        InputError: a shape names no input, contradicts the model, or stays open.
    """
    known = {spec.name: spec for spec in inputs}
    for name in asked:
        if name not in known:
            raise InputError(
                f"{model}: source.inputs names {name!r}, the model has {', '.join(known)}", hint="rename it"
            )
    shapes: dict[str, tuple[int, ...]] = {}
    for name, spec in known.items():
        shape = asked.get(name) or (first[name].shape if first and name in first and -1 in spec.shape else spec.shape)
        # What the model has fixed cannot be freed.
        fits = len(shape) == len(spec.shape) and all(b in (-1, a) for a, b in zip(shape, spec.shape, strict=True))
        if not fits:
            raise InputError(
                f"{model}: input {name!r} has shape {list(spec.shape)}, which {list(shape)} does not fit",
                hint="-1 marks the dimensions you may choose",
            )
        if -1 in shape and name not in asked:
            raise InputError(
                f"{model}: input {name!r} leaves dimensions free: {list(spec.shape)}",
                hint=f"say in deploy.yaml what they are, such as source: {{inputs: {{{name}: [1, 224, 224, 3]}}}}; "
                "-1 leaves one free",
            )
        shapes[name] = tuple(int(size) for size in shape)
    return shapes


def refuse_bad_weights(path: Path, weights: Iterable[tuple[str, np.ndarray[Any, Any]]]) -> None:
    """Raise when a weight holds NaN or infinity: nothing computed from it could be trusted.

    A lone infinity is no weight but a bound, as of clipping (MINIMUM with infinity in a model of the wild).

    Raises:
        InputError: names the file, the weight and how many values are bad.
    """
    for name, value in weights:
        if np.issubdtype(value.dtype, np.floating):
            bad = int(value.size - np.count_nonzero(np.isfinite(value)))
            if bad and not (value.size == 1 and np.isinf(value).all()):
                raise InputError(
                    f"{path}: weight {name!r} holds {bad} of {value.size} values that are NaN or infinite",
                    hint="the training diverged or the file is damaged: give a checkpoint from before that",
                )
