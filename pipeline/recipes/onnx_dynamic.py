"""onnxruntime's dynamic quantization: int8 weights, activations quantized while the model runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.recipes.recipe import Ingredients, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicInt8:
    """Weights per channel in matrix products; onnxruntime's ConvInteger takes one scale whatever is asked.

    Unsigned weights unless asked otherwise: on x86 the signed ones run 2 to 6 times slower, because there is no
    int8 × int8 kernel for ConvInteger.
    """

    summary: str
    signed_weights: bool = False
    per_channel: bool = True
    size_promise: float = 0.25
    latency_promise: float = 0.5
    format: Literal["onnx"] = "onnx"
    start: Literal["float"] = "float"
    tools: tuple[str, ...] = ("onnx", "onnxruntime")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        from pipeline import onnx_file
        from pipeline.search.onnx_ops import with_node_names

        model = with_node_names(onnx_file.read(ingredients.float_model))
        large = onnx_file.total_bytes(model) > onnx_file.LARGEST_BYTES
        made = ingredients.scratch / "dynamic.onnx" if large else output
        quantize_dynamic(
            model,
            str(made),
            weight_type=QuantType.QInt8 if self.signed_weights else QuantType.QUInt8,
            per_channel=self.per_channel,
            nodes_to_exclude=list(ingredients.excluded),
            use_external_data_format=large,
        )
        if large:  # its weights lie in a file of onnxruntime's name
            onnx_file.write(onnx_file.read(made), output)

    def fallbacks(self) -> Sequence[tuple[str, Recipe]]:
        other = replace(self, signed_weights=not self.signed_weights)
        one_scale = replace(self, per_channel=False)
        return (
            (f"with {'unsigned' if self.signed_weights else 'signed'} weights", other),
            ("with one scale for each tensor of weights", one_scale),
        )

    def why_float(self, op: str) -> str:
        return f"onnxruntime has no dynamic integer form of {op}"


DYNAMIC_INT8 = DynamicInt8(
    summary="int8 weights, activations quantized while running; meant for MatMul and LSTM, slow on convolutions"
)
DYNAMIC_INT8_U8S8 = DynamicInt8(
    signed_weights=True, summary="onnx-dynamic-int8 with signed weights: for ARM; 2 to 6 times slower on x86"
)
