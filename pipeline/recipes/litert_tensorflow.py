"""The two recipes that are options of TensorFlow's own TFLite converter: half-precision weights, and
`tf.lite.Optimize.DEFAULT`, which without data means dynamic-range quantization: int8 weights, per channel, and
activations quantized while the model runs. Of a source that TensorFlow does not know, ai-edge-quantizer makes the same
from the float `.tflite`."""

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.recipes import litert_weights
from pipeline.recipes.litert_weights import TENSORFLOW_LEAST_WEIGHTS, Weights
from pipeline.recipes.recipe import Ingredients


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowOption:
    """A conversion of the source with one option of the converter; `otherwise` is the same without TensorFlow."""

    float16: bool
    otherwise: Weights
    summary: str
    reason: str
    size_promise: float
    latency_promise: float | None = None
    format: Literal["tflite"] = "tflite"
    start: Literal["float"] = "float"
    tools: tuple[str, ...] = ("tensorflow", "ai-edge-quantizer")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        if not tarfile.is_tarfile(ingredients.source):  # an archived SavedModel is a tar, and no other source is
            self.otherwise.quantize(ingredients, output)
            ingredients.note("made by ai-edge-quantizer: TensorFlow's converter knows no such source")
            return
        from pipeline.exporters.saved_model import unpack_archive
        from pipeline.exporters.to_tflite import convert

        saved_model = unpack_archive(ingredients.source, ingredients.scratch)
        output.write_bytes(convert(saved_model, default_optimization=True, float16=self.float16))

    def why_float(self, op: str) -> str:
        return self.reason


FLOAT16 = TensorFlowOption(
    float16=True,
    otherwise=litert_weights.FLOAT16,
    size_promise=0.5,
    summary="weights stored in half precision, computed in float32",
    reason="only the stored weights are float16; the CPU computes in float32",
)
DYNAMIC_INT8 = TensorFlowOption(
    float16=False,
    otherwise=litert_weights.DYNAMIC_INT8,
    size_promise=0.25,
    latency_promise=0.5,
    summary="TensorFlow's Optimize.DEFAULT: int8 weights, activations quantized while running",
    reason=f"dynamic range quantizes only ops with constant weights of {TENSORFLOW_LEAST_WEIGHTS} elements or more "
    "that have a hybrid kernel",
)
