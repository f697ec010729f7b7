"""Static quantization of the float `.tflite` with ai-edge-quantizer, from our calibrated ranges.

Weights are int8, symmetric, one scale per output channel; activations int8 affine or int16 symmetric, one scale per
tensor (the LiteRT 8-bit quantization specification; Jacob et al. 2018, arXiv:1712.05877).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ConversionFailed
from pipeline.recipes.recipe import Ingredients, Ranges

Io = Literal["float32", "int8", "uint8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """Integer weights and activations; `io` is the data type of the model's own inputs and outputs."""

    activation_bits: Literal[8, 16]
    io: Io
    summary: str
    format: Literal["tflite"] = "tflite"
    start: Literal["ranges"] = "ranges"
    tools: tuple[str, ...] = ("ai-edge-quantizer", "ai-edge-litert")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        from ai_edge_quantizer import qtyping, quantizer
        from ai_edge_quantizer import recipe as presets

        preset = presets.static_wi8_ai8() if self.activation_bits == 8 else presets.static_wi8_ai16()
        engine = quantizer.Quantizer(str(ingredients.float_model), preset)
        # Float inputs and outputs first: a drop-in replacement. Integer ones are made from that by changing the
        # interface, because the quantizer itself knows no uint8.
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            engine.update_quantization_recipe(".*", end, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        model = engine.quantize(_calibration_result(ingredients)).quantized_model
        if not model:
            raise ConversionFailed("ai-edge-quantizer gave no model", hint="try litert-dynamic-int8")
        output.write_bytes(model)
        if self.io != "float32":
            _change_interface(output, self.io, ingredients.scratch)

    def why_float(self, op: str) -> str:
        return f"ai-edge-quantizer has no int{self.activation_bits} rule for {op}"


def _calibration_result(ingredients: Ingredients) -> dict[str, dict[str, Any]]:
    """The ranges in the form of ai-edge-quantizer's calibration: arrays of one element with the tensor's rank."""
    import numpy as np

    ranks = _ranks(ingredients.float_model)

    def shaped(name: str, value: float) -> Any:
        return np.full((1,) * max(1, ranks.get(name, 1)), value, np.float32)

    ranges: Ranges = ingredients.ranges
    return {name: {"min": shaped(name, low), "max": shaped(name, high)} for name, (low, high) in ranges.items()}


def _ranks(path: Path) -> dict[str, int]:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    return {
        tensor.name.decode(): len(tensor.shape) if tensor.shape is not None else 0
        for graph in model.subgraphs
        for tensor in graph.tensors
    }


def _change_interface(path: Path, io: Io, scratch: Path) -> None:
    """Drop the QUANTIZE and DEQUANTIZE ops at the ends, so that the model takes and gives integers."""
    # The binding behind TFLiteConverter's `inference_input_type`; LiteRT ships it without a public Python name.
    from ai_edge_litert import _pywrap_modify_model_interface, schema_py_generated
    from ai_edge_litert.tools import flatbuffer_utils

    types = {"int8": schema_py_generated.TensorType.INT8, "uint8": schema_py_generated.TensorType.UINT8}
    changed = scratch / "integer_io.tflite"
    status = _pywrap_modify_model_interface.modify_model_interface(str(path), str(changed), types[io], types[io])
    if status != 0:
        raise ConversionFailed(
            f"the inputs and outputs cannot be made {io}: an input or output is not quantized",
            hint="use the recipe with float32 inputs and outputs: litert-int8",
        )
    # It renumbers the tensors but leaves the signatures pointing at the old numbers.
    before, after = flatbuffer_utils.read_model(str(path)), flatbuffer_utils.read_model(str(changed))
    for old, new in zip(before.signatureDefs or [], after.signatureDefs or [], strict=True):
        graph, changed_graph = before.subgraphs[old.subgraphIndex], after.subgraphs[new.subgraphIndex]
        for old_ends, new_ends, old_order, new_order in (
            (old.inputs, new.inputs, graph.inputs, changed_graph.inputs),
            (old.outputs, new.outputs, graph.outputs, changed_graph.outputs),
        ):
            for old_end, new_end in zip(old_ends, new_ends, strict=True):
                new_end.tensorIndex = int(new_order[list(old_order).index(old_end.tensorIndex)])
    flatbuffer_utils.write_model(after, str(path))


INT8 = Static(activation_bits=8, io="float32", summary="int8 weights and activations, float32 inputs and outputs")
INT8_IO_INT8 = Static(activation_bits=8, io="int8", summary="int8 throughout, inputs and outputs included")
INT8_IO_UINT8 = Static(activation_bits=8, io="uint8", summary="int8 inside, uint8 inputs and outputs (camera bytes)")
INT16X8 = Static(activation_bits=16, io="float32", summary="int16 activations, int8 weights: precise, often slow")
