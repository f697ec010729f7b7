"""The protocol of a quantization recipe, and what one is given to work with."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from pipeline.errors import EnvironmentFault
from pipeline.plugins import load_plugin
from pipeline.records import Format, Precision, Repair
from pipeline.runtimes.pixels import Affine

# What a recipe starts from: the source (as the export's SavedModel), the float model in its own format, that and the
# calibrated ranges of its tensors, or those and the precision of each op (a search found it, or deploy.yaml says it);
# or model and ranges of the source fine-tuned for int8 activations and int8 or int4 weights, with the ranges that
# training learned among the calibrated ones.
Start = Literal["source", "float", "ranges", "search", "mixed", "finetuned-w8", "finetuned-w4"]
WEIGHT_BITS: Mapping[Start, int] = {"finetuned-w8": 8, "finetuned-w4": 4}
Ranges = Mapping[str, tuple[float, float]]
Inputs = Mapping[str, np.ndarray[Any, Any]]


def _no_samples() -> Iterable[Inputs]:
    return ()


def _unheard(said: str) -> None:
    """For who keeps no record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What a recipe may use.

    ranges: float tensors of `float_model` to (min, max); empty unless asked for.
    precisions: a mixed recipe, every op's own precision (`pipeline.search.ops` names ops); empty: the recipe's for all.
    repairs: what a search found to help; empty: the recipe's own.
    excluded: ONNX nodes that stay in float because the candidate broke there (`pipeline.recipes.ladder`).
    samples: the calibration samples, anew on every call; of sequences every step, with the float model's state.
    pixels: what the bytes of each input's images mean, for a recipe that `folds`; empty for all others.
    note: takes what the record should say of how the candidate came about.
    """

    source: Path
    float_model: Path
    ranges: Ranges
    scratch: Path
    precisions: Mapping[str, Precision] = field(default_factory=dict)
    repairs: tuple[Repair, ...] = ()
    excluded: tuple[str, ...] = ()
    samples: Callable[[], Iterable[Inputs]] = _no_samples
    pixels: Mapping[str, Affine] = field(default_factory=dict)
    note: Callable[[str], None] = _unheard


class Recipe(Protocol):
    """One way to make a candidate. `quantize` runs in the worker and may raise whatever its converter raises.

    A recipe may also have `fallbacks()`: itself made less boldly, each with words for the record, tried in this order
    when the candidate cannot be made, loaded or run; `folds`, when its model takes an image's bytes; and the published
    promises `size_promise` and `latency_promise` (see `promise`).
    """

    @property
    def summary(self) -> str:
        """One line for the table of recipes."""

    @property
    def format(self) -> Format: ...

    @property
    def start(self) -> Start: ...

    @property
    def tools(self) -> tuple[str, ...]:
        """Distributions whose versions decide the result."""

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        """Write the candidate to `output`."""

    def why_float(self, op: str) -> str:
        """Why this recipe leaves an op of this type in float."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the toolkits' own guides say a recipe comes to, as a share of the float32 model; None: they say nothing.

    Sizes are those of the weights. Latencies are from the table of TensorFlow's guide "Post-training quantization"
    (dynamic range "2x-3x speedup", full integer "3x+ speedup"): the least of them.
    """

    size: float | None = None
    latency: float | None = None


def promise(name: str) -> Promise:
    """What is promised of the recipe registered under `name`."""
    found = recipe(name)
    return Promise(size=getattr(found, "size_promise", None), latency=getattr(found, "latency_promise", None))


def is_equalized(name: str) -> bool:
    """Whether the recipe starts from the float model after cross-layer equalisation, which has ranges of its own."""
    return "cle" in getattr(recipe(name), "repairs", ())


def recipe(name: str) -> Recipe:
    """The recipe registered under `name`; imports none of its converters.

    Raises:
        EnvironmentFault: an installed package registers a recipe that cannot be loaded.
    """
    from pipeline.recipes import RECIPES

    try:
        found: Recipe = load_plugin(RECIPES[name])
    except Exception as error:  # a third party's module may raise anything
        raise EnvironmentFault(
            f"recipe {name}: {RECIPES[name]} cannot be loaded: {type(error).__name__}: {error}",
            hint="mend or uninstall the package that registers it under the entry points `edge_deploy.recipes`",
        ) from error
    return found
