"""The protocol of a quantization recipe, and what one is given to work with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pipeline.errors import EnvironmentFault
from pipeline.plugins import load_plugin
from pipeline.records import Format

# What a recipe starts from: the source (as the export's SavedModel), the float model in its own format, or that and
# the calibrated ranges of its tensors; or both of them of the source fine-tuned for int8 activations and int8 or int4
# weights, with the ranges that training learned among the calibrated ones.
Start = Literal["source", "float", "ranges", "finetuned-w8", "finetuned-w4"]
WEIGHT_BITS: Mapping[Start, int] = {"finetuned-w8": 8, "finetuned-w4": 4}
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What a recipe may use. `ranges` maps float tensors of `float_model` to (min, max); empty unless asked for."""

    source: Path
    float_model: Path
    ranges: Ranges
    scratch: Path


class Recipe(Protocol):
    """One way to make a candidate. `quantize` runs in the worker and may raise whatever its converter raises."""

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
