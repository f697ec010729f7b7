"""onnxruntime's static quantization in QDQ form from our calibrated ranges, weights int8 per channel.

On x86, onnxruntime makes signed activations unsigned before it fuses, but not where a tensor has two readers (a
shortcut, a concatenation): ops around those run in float there and in integers on ARM, and the answers differ.
Unsigned activations are fused alike everywhere.

Either one precision for all nodes, or the one that `Ingredients.precisions` gives to each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.recipes.recipe import Ingredients, Recipe, Start
from pipeline.records import Precision, Repair

_WIDE_OPTIONS = {
    # 16-bit QuantizeLinear is standard from opset 21 on; onnxruntime has had its own before.
    "UseQDQContribOps": True,
    # A ReLU is left to the clipping at zero point -128; symmetric 16-bit data does not clip at 0.
    "QDQKeepRemovableActivations": True,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """QuantizeLinear/DequantizeLinear pairs around every op that onnxruntime can run in int8."""

    summary: str
    precision: Precision = "int8"
    signed_activations: bool = False
    signed_weights: bool = True
    per_channel: bool = True
    reduce_range: bool = False
    repairs: tuple[Repair, ...] = ()
    size_promise: float | None = 0.25
    latency_promise: float | None = 1 / 3
    format: Literal["onnx"] = "onnx"
    start: Start = "ranges"
    tools: tuple[str, ...] = ("onnx", "onnxruntime")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        repairs = ingredients.repairs or self.repairs
        self._convert(ingredients, output)
        if "gptq" in repairs:
            from pipeline.recipes.onnx_rounding import by_output

            self._convert(replace(ingredients, float_model=by_output(ingredients, output)), output)
        elif "bias" in repairs:  # which the above does as well
            from pipeline.recipes.onnx_bias import corrected

            # Once to see what the weights have become, and again with biases that make up for it.
            self._convert(replace(ingredients, float_model=corrected(ingredients, output)), output)

    def _convert(self, ingredients: Ingredients, output: Path) -> None:
        import numpy as np
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
        from onnxruntime.quantization.registry import QDQRegistry

        from pipeline import onnx_file
        from pipeline.search.onnx_ops import with_node_names

        model = with_node_names(onnx_file.read(ingredients.float_model))
        ranges = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ingredients.ranges.items()}
        activations = QuantType.QInt8 if self.signed_activations else QuantType.QUInt8
        options: dict[str, Any] = {}
        if self.precision == "int16x8":
            activations = QuantType.QInt16
            options = {"ActivationSymmetric": True, **_WIDE_OPTIONS}
        elif "int16x8" in ingredients.precisions.values():
            options = {
                "TensorQuantOverrides": _wide(model, ingredients.precisions, activations),
                **_WIDE_OPTIONS,
            }
        engine = QDQQuantizer(
            model,
            per_channel=self.per_channel,
            reduce_range=self.reduce_range,
            weight_qType=QuantType.QInt8 if self.signed_weights else QuantType.QUInt8,
            activation_qType=activations,
            tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
            nodes_to_quantize=[],
            nodes_to_exclude=[*_floats(ingredients.precisions), *ingredients.excluded],
            op_types_to_quantize=list(QDQRegistry),
            extra_options=options,
        )
        engine.quantize_model()
        model = engine.model.model
        used = {node.domain for node in model.graph.node} | {""}
        for opset in [opset for opset in model.opset_import if opset.domain not in used]:
            model.opset_import.remove(opset)  # optimisation leaves a trail of domains no node uses
        onnx_file.write(model, output)

    def fallbacks(self) -> Sequence[tuple[str, Recipe]]:
        return (
            ("with unsigned weights", replace(self, signed_weights=not self.signed_weights)),
            ("with one scale for each tensor of weights", replace(self, per_channel=False)),
        )

    def why_float(self, op: str) -> str:
        if self.start == "mixed":
            return "deploy.yaml's `mixed` left it in float, or onnxruntime's QDQ quantizer has no rule for it"
        if self.start == "search":
            return "the search left it in float, or onnxruntime's QDQ quantizer has no rule for it"
        return f"onnxruntime's QDQ quantizer has no rule for {op}, or its inputs are not quantized"


def _floats(precisions: Mapping[str, Precision]) -> list[str]:
    # Half precision is float here: onnxruntime's CPU kernels would convert to float32 and back around every op.
    return [node for node, precision in precisions.items() if precision in ("float32", "float16")]


def _wide(model: Any, precisions: Mapping[str, Precision], default: Any) -> dict[str, Any]:
    """Overrides for 16-bit activations around some nodes, with the conversions from and to their 8-bit neighbours."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.execution_providers.qnn.mixed_precision_overrides_utils import (
        MixedPrecisionTensorQuantOverridesFixer,
    )
    from onnxruntime.quantization.tensor_quant_overrides import TensorQuantOverridesHelper

    chosen = {node for node, precision in precisions.items() if precision == "int16x8"}
    constants = {value.name for value in model.graph.initializer}
    in_int8 = {name for node in model.graph.node if precisions.get(node.name) == "int8" for name in node.output}
    # What an 8-bit node makes has 8 bits; anything else that goes into a 16-bit node comes with 16.
    around = [name for node in model.graph.node if node.name in chosen for name in (*node.output, *node.input[:1])]
    wide = [name for name in dict.fromkeys(around) if name and name not in constants | in_int8]
    asked = TensorQuantOverridesHelper({name: [{"quant_type": QuantType.QInt16, "symmetric": True}] for name in wide})
    fixer = MixedPrecisionTensorQuantOverridesFixer.create_from_model(asked, model, default)
    fixer.apply(default_activation_qtype=default, default_activation_symmetric=False)
    found: dict[str, Any] = asked.get_dict()
    return found


INT8 = Static(summary="int8 weights per channel and uint8 activations, QDQ")
INT8_CLE = Static(repairs=("cle",), summary="int8 after cross-layer equalisation")
INT8_CLE_BIAS = Static(repairs=("cle", "bias"), summary="int8 after cross-layer equalisation, with bias correction")
INT8_BIAS = Static(repairs=("bias",), summary="int8, biases corrected for the error of the weights")
INT8_GPTQ = Static(
    repairs=("gptq",), summary="int8, weights rounded so that each layer's output changes least, biases corrected"
)
AUTO = Static(
    start="search",
    size_promise=None,
    latency_promise=None,
    summary="a precision for every op, to meet max_drop at least cost",
)
MIXED = Static(
    start="mixed",
    size_promise=None,
    latency_promise=None,
    summary="a precision for every op, as deploy.yaml's `mixed` says",
)
INT16X8 = Static(
    precision="int16x8",
    latency_promise=None,
    summary="int16 activations, int8 weights: precise; onnxruntime computes it in float",
)
INT8_W7 = Static(
    reduce_range=True,
    summary="onnx-int8 with 7-bit weights: for x86 without VNNI, where 8-bit products saturate unless exact ones are "
    "asked for",
)
INT8_S8S8 = Static(
    signed_activations=True,
    summary="int8 weights per channel and int8 activations: partly in float on x86, so answers differ from ARM's",
)
QAT_INT8 = Static(
    signed_activations=False,
    start="finetuned-w8",
    summary="onnx-int8 after quantization-aware fine-tuning; no labels needed",
)
