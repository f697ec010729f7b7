"""The two recipes that are options of TensorFlow's own TFLite converter: half-precision weights, and
`tf.lite.Optimize.DEFAULT`, which without data means dynamic-range quantization: int8 weights, per channel, and
activations quantized while the model runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.recipes.recipe import Ingredients


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowOption:
    """A conversion of the source with one option of the converter."""

    float16: bool
    summary: str
    reason: str
    format: Literal["tflite"] = "tflite"
    start: Literal["source"] = "source"
    tools: tuple[str, ...] = ("tensorflow",)

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        from pipeline.exporters.saved_model import unpack_archive
        from pipeline.exporters.to_tflite import convert

        saved_model = unpack_archive(ingredients.source, ingredients.scratch)
        output.write_bytes(convert(saved_model, default_optimization=True, float16=self.float16))

    def why_float(self, op: str) -> str:
        return self.reason


FLOAT16 = TensorFlowOption(
    float16=True,
    summary="weights stored in half precision, computed in float32",
    reason="only the stored weights are float16; the CPU computes in float32",
)
DYNAMIC_INT8 = TensorFlowOption(
    float16=False,
    summary="TensorFlow's Optimize.DEFAULT: int8 weights, activations quantized while running",
    reason="dynamic range quantizes only ops with constant weights of 1024 elements or more that have a hybrid kernel",
)
