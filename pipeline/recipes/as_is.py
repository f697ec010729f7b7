"""A model that came quantized, deployed byte by byte as it is: verified and measured, not changed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.model_files import copy_model
from pipeline.recipes.recipe import Ingredients
from pipeline.records import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class AsIs:
    """The source file itself."""

    format: Format
    tools: tuple[str, ...] = ()
    summary: str = "a file that is quantized already, unchanged: verified on the device and measured"
    start: Literal["float"] = "float"

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        copy_model(self.format, ingredients.float_model, output)

    def why_float(self, op: str) -> str:
        return "whoever quantized the file left it so"


LITERT = AsIs(format="tflite")
ONNX = AsIs(format="onnx")
