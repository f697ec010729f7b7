"""The float model as exported: the baseline that every candidate is compared with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.model_files import copy_model
from pipeline.recipes.recipe import Ingredients
from pipeline.records import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Float32:
    """The export itself, in any format."""

    format: Format
    tools: tuple[str, ...]
    summary: str = "the model as exported: the baseline"
    size_promise: float | None = None
    latency_promise: float | None = None
    start: Literal["float"] = "float"

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        copy_model(self.format, ingredients.float_model, output)

    def why_float(self, op: str) -> str:
        return "float32 is what this recipe is"


LITERT = Float32(format="tflite", tools=())
ONNX = Float32(format="onnx", tools=())
TORCH = Float32(format="pt", tools=("torch",))
