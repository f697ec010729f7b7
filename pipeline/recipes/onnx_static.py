"""onnxruntime's static quantization in QDQ form from our calibrated ranges, weights int8 per channel.

On x86, onnxruntime makes signed activations unsigned before it fuses, but not where a tensor has two readers (a
shortcut, a concatenation): ops around those run in float there and in integers on ARM, and the answers differ.
Unsigned activations are fused alike everywhere.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.recipes.recipe import Ingredients, Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """QuantizeLinear/DequantizeLinear pairs around every op that onnxruntime can run in int8."""

    signed_activations: bool
    summary: str
    format: Literal["onnx"] = "onnx"
    start: Start = "ranges"
    tools: tuple[str, ...] = ("onnx", "onnxruntime")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        import numpy as np
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.registry import QDQRegistry

        ranges = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ingredients.ranges.items()}
        engine = QDQQuantizer(
            onnx.load(str(ingredients.float_model)),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if self.signed_activations else QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=list(QDQRegistry),
            extra_options={},
        )
        engine.quantize_model()
        model = engine.model.model
        used = {node.domain for node in model.graph.node} | {""}
        for opset in [opset for opset in model.opset_import if opset.domain not in used]:
            model.opset_import.remove(opset)  # optimisation leaves a trail of domains no node uses
        onnx.save(model, str(output))

    def why_float(self, op: str) -> str:
        return f"onnxruntime's QDQ quantizer has no rule for {op}, or its inputs are not quantized"


INT8 = Static(signed_activations=False, summary="int8 weights per channel and uint8 activations, QDQ")
INT8_S8S8 = Static(
    signed_activations=True,
    summary="int8 weights per channel and int8 activations: partly in float on x86, so answers differ from ARM's",
)
QAT_INT8 = Static(
    signed_activations=False,
    start="finetuned-w8",
    summary="onnx-int8 after quantization-aware fine-tuning; no labels needed",
)
