"""Static quantization of the float `.tflite` with ai-edge-quantizer, from our calibrated ranges.

Weights are symmetric, one scale per output channel: int8, or int4 in the ops that have it. Activations are int8 affine
or int16 symmetric, one scale per tensor (the LiteRT 8-bit quantization specification; Jacob et al. 2018,
arXiv:1712.05877).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ConversionFailed
from pipeline.recipes.recipe import Ingredients, Start

# All that have an int4 rule with int8 activations (`static_wi4_ai8` of ai-edge-quantizer 0.10); depthwise and
# transposed convolutions keep int8 weights. LiteRT runs these two, unpacking the weights before the kernel.
_INT4_OPS = ("CONV_2D", "FULLY_CONNECTED")
Io = Literal["float32", "int8", "uint8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """Integer weights and activations; `io` is the data type of the model's own inputs and outputs."""

    activation_bits: Literal[8, 16]
    io: Io
    summary: str
    weight_bits: Literal[4, 8] = 8
    format: Literal["tflite"] = "tflite"
    start: Start = "ranges"
    tools: tuple[str, ...] = ("ai-edge-quantizer", "ai-edge-litert")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        from ai_edge_quantizer import qtyping, quantizer
        from ai_edge_quantizer import recipe as presets

        preset = presets.static_wi8_ai8() if self.activation_bits == 8 else presets.static_wi8_ai16()
        engine = quantizer.Quantizer(str(ingredients.float_model), preset)
        if self.weight_bits == 4:
            for op in _INT4_OPS:
                engine.add_static_config(".*", qtyping.TFLOperationName[op], self.activation_bits, 4)
        if self.io != "int8":
            # Float inputs and outputs: a drop-in replacement. The quantizer knows no uint8: that is made from this.
            for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
                engine.update_quantization_recipe(".*", end, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        model = engine.quantize(_calibration_result(ingredients)).quantized_model
        if not model:
            raise ConversionFailed("ai-edge-quantizer gave no model", hint="try litert-dynamic-int8")
        output.write_bytes(model)
        if self.io == "uint8":
            _take_and_give_uint8(output, ingredients.scratch)
        _check_interface(output, self.io)

    def why_float(self, op: str) -> str:
        return f"ai-edge-quantizer has no int{self.activation_bits} rule for {op}"


def _calibration_result(ingredients: Ingredients) -> dict[str, dict[str, Any]]:
    """The ranges of the activations in the form of ai-edge-quantizer's calibration: arrays of one element with the
    tensor's rank. A constant must not be among them: a given range makes its weights per tensor, not per channel."""
    import numpy as np

    ranks = _activation_ranks(ingredients.float_model)
    return {
        name: {
            "min": np.full((1,) * max(1, ranks[name]), low, np.float32),
            "max": np.full((1,) * max(1, ranks[name]), high, np.float32),
        }
        for name, (low, high) in ingredients.ranges.items()
        if name in ranks
    }


def _activation_ranks(path: Path) -> dict[str, int]:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    return {
        tensor.name.decode(): len(tensor.shape) if tensor.shape is not None else 0
        for graph in model.subgraphs
        for tensor in graph.tensors
        if model.buffers[tensor.buffer].data is None or not len(model.buffers[tensor.buffer].data)
    }


def _take_and_give_uint8(path: Path, scratch: Path) -> None:
    """Turn the QUANTIZE and DEQUANTIZE ops at the ends into ones from and to uint8."""
    # The binding behind TFLiteConverter's `inference_input_type`; LiteRT ships it without a public Python name. Not
    # for int8: it takes those ops out then, and leaves other ops pointing at the old tensor numbers.
    from ai_edge_litert import _pywrap_modify_model_interface, schema_py_generated

    changed, uint8 = scratch / "integer_io.tflite", schema_py_generated.TensorType.UINT8
    # Its status says nothing: it is 0 also when there was nothing to change. The result is checked instead.
    _pywrap_modify_model_interface.modify_model_interface(str(path), str(changed), uint8, uint8)
    changed.replace(path)


def _check_interface(path: Path, io: Io) -> None:
    from ai_edge_litert import schema_py_generated
    from ai_edge_litert.tools import flatbuffer_utils

    graph = flatbuffer_utils.read_model(str(path)).subgraphs[0]
    wanted = getattr(schema_py_generated.TensorType, io.upper())
    integers = {schema_py_generated.TensorType.INT32, schema_py_generated.TensorType.INT64}  # indices, not quantities
    for index in (*graph.inputs, *graph.outputs):
        if graph.tensors[index].type not in {wanted, *integers}:
            raise ConversionFailed(
                f"{graph.tensors[index].name.decode()} cannot be made {io}: its op is not quantized",
                hint="use the recipe with float32 inputs and outputs: litert-int8",
            )


INT8 = Static(activation_bits=8, io="float32", summary="int8 weights and activations, float32 inputs and outputs")
INT8_W4 = Static(
    activation_bits=8,
    io="float32",
    weight_bits=4,
    summary="int8 activations, int4 weights in convolutions and dense layers: smallest, often slower",
)
QAT_INT8 = Static(
    activation_bits=8,
    io="float32",
    start="finetuned-w8",
    summary="litert-int8 after quantization-aware fine-tuning; no labels needed",
)
QAT_INT8_W4 = Static(
    activation_bits=8,
    io="float32",
    weight_bits=4,
    start="finetuned-w4",
    summary="litert-int8-w4 after quantization-aware fine-tuning; no labels needed",
)
INT8_IO_INT8 = Static(activation_bits=8, io="int8", summary="int8 throughout, inputs and outputs included")
INT8_IO_UINT8 = Static(activation_bits=8, io="uint8", summary="int8 inside, uint8 inputs and outputs (camera bytes)")
INT16X8 = Static(activation_bits=16, io="float32", summary="int16 activations, int8 weights: precise, often slow")
