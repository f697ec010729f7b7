"""onnxruntime's dynamic quantization: int8 weights, activations quantized while the model runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.recipes.recipe import Ingredients


@dataclass(frozen=True, slots=True)
class DynamicInt8:
    """Weights per tensor: onnxruntime's ConvInteger takes one scale."""

    format: Literal["onnx"] = "onnx"
    start: Literal["float"] = "float"
    tools: tuple[str, ...] = ("onnx", "onnxruntime")
    summary: str = "int8 weights, activations quantized while running; meant for MatMul and LSTM, slow on convolutions"

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # Unsigned weights: on x86 the signed ones run 2-6 times slower (no int8 x int8 kernel for ConvInteger).
        quantize_dynamic(str(ingredients.float_model), str(output), weight_type=QuantType.QUInt8, per_channel=False)

    def why_float(self, op: str) -> str:
        return f"onnxruntime has no dynamic integer form of {op}"


DYNAMIC_INT8 = DynamicInt8()
