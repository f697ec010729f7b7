"""Static quantization of the float `.tflite` with ai-edge-quantizer, from our calibrated ranges.

Weights are symmetric, one scale per output channel: int8, or int4 in the ops that have it. Activations are int8 affine
or int16 symmetric, one scale per tensor (the LiteRT 8-bit quantization specification; Jacob et al. 2018,
arXiv:1712.05877). Either one precision for all ops, or the one that `Ingredients.precisions` gives to each.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ConversionFailed
from pipeline.recipes.recipe import Ingredients, Start
from pipeline.records import Precision, Repair

# All that have an int4 rule with int8 activations (`static_wi4_ai8` of ai-edge-quantizer 0.10); depthwise and
# transposed convolutions keep int8 weights. LiteRT runs these two, unpacking the weights before the kernel.
_INT4_OPS = ("CONV_2D", "FULLY_CONNECTED")
Io = Literal["float32", "int8", "uint8"]
_ALL = ".*"
_ENDS = ".*$"  # the same ops as `_ALL`; a pattern of its own, because rules of one pattern replace each other
# Ways to choose the scales of weights that ai-edge-quantizer has besides the largest value.
_WEIGHT_ALGORITHMS: Mapping[Repair, str] = {"octav": "OCTAV", "mse": "MSE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Static:
    """Integer weights and activations; `io` is the data type of the model's own inputs and outputs."""

    precision: Precision
    summary: str
    io: Io = "float32"
    repairs: tuple[Repair, ...] = ()
    size_promise: float | None = 0.25
    latency_promise: float | None = 1 / 3
    format: Literal["tflite"] = "tflite"
    start: Start = "ranges"
    tools: tuple[str, ...] = ("ai-edge-quantizer", "ai-edge-litert")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        repairs = ingredients.repairs or self.repairs
        self._convert(ingredients, repairs, output)
        if "bias" in repairs:
            from pipeline.recipes.litert_bias import corrected

            # Once to see what the weights have become, and again with biases that make up for it.
            mended = corrected(ingredients, output)
            self._convert(replace(ingredients, float_model=mended), repairs, output)
        if self.io == "uint8":
            _take_and_give_uint8(output, ingredients.scratch)
        _check_interface(output, self.io)

    def _convert(self, ingredients: Ingredients, repairs: tuple[Repair, ...], output: Path) -> None:
        from ai_edge_quantizer import quantizer

        engine = quantizer.Quantizer(str(with_signatures(ingredients)))
        for precision, pattern in _patterns(ingredients.precisions, self.precision).items():
            _add_rule(engine, pattern, precision, repairs)
        if self.io != "int8":
            # Float inputs and outputs: a drop-in replacement. The quantizer knows no uint8: that is made from this.
            for end in ("INPUT", "OUTPUT"):
                engine.update_quantization_recipe(_ENDS, end, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        model = engine.quantize(_calibration_result(ingredients)).quantized_model
        if not model:
            raise ConversionFailed("ai-edge-quantizer gave no model", hint="try litert-dynamic-int8")
        output.write_bytes(model)

    def why_float(self, op: str) -> str:
        if self.start == "mixed":
            return "deploy.yaml's `mixed` left it in float, or ai-edge-quantizer has no rule for it"
        if self.start == "search":
            return "the search left it in float, or ai-edge-quantizer has no rule for it"
        # Ops without int4 weights keep int8 ones, so that what is left in float has no int8 rule either.
        return f"ai-edge-quantizer has no {'int8' if self.precision == 'int8x4' else self.precision} rule for {op}"


def with_signatures(ingredients: Ingredients) -> Path:
    """The float model, with an empty list of signatures where it has none at all: ai-edge-quantizer goes through it
    without looking ("'NoneType' object is not iterable")."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(ingredients.float_model))
    if model.signatureDefs is not None:
        return ingredients.float_model
    model.signatureDefs = []
    listed = ingredients.scratch / "listed.tflite"
    flatbuffer_utils.write_model(model, str(listed))
    return listed


def _patterns(precisions: Mapping[str, Precision], default: Precision) -> dict[Precision, str]:
    """A pattern of ai-edge-quantizer's op scopes for each precision. A scope is an op's outputs, each with a `;`.

    Ops without a name of their own in `precisions` (there are none when it is not empty) stay in float.
    """
    if not precisions:
        return {default: _ALL}
    named: dict[Precision, list[str]] = {}
    for op, precision in precisions.items():
        named.setdefault(precision, []).append(re.escape(op))
    return {precision: f"^(?:{'|'.join(names)});$" for precision, names in sorted(named.items())}


def _add_rule(engine: Any, pattern: str, precision: Precision, repairs: tuple[Repair, ...]) -> None:
    """Tell the quantizer what to do with the ops of `pattern`; ops it has no rule for stay in float."""
    from ai_edge_quantizer import qtyping

    every = qtyping.TFLOperationName.ALL_SUPPORTED
    if precision == "float16":
        # Half-precision weights, computed in float32: what TensorFlow's converter calls float16.
        for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_2D_TRANSPOSE"):
            engine.add_weight_only_config(
                pattern,
                qtyping.TFLOperationName(op),
                num_bits=16,
                granularity=qtyping.QuantGranularity.TENSORWISE,
                algorithm_key="float_casting",
            )
    elif precision != "float32":
        bits = 16 if precision == "int16x8" else 8
        engine.add_static_config(pattern, every, activation_num_bits=bits, weight_num_bits=8)
        algorithm = next((_WEIGHT_ALGORITHMS[repair] for repair in repairs if repair in _WEIGHT_ALGORITHMS), None)
        if algorithm or precision == "int8x4":
            # A rule for some ops under a pattern goes with the one for all; the last that knows the op counts.
            for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_2D_TRANSPOSE"):
                if precision == "int8x4" and op not in _INT4_OPS:
                    continue  # it keeps the int8 weights of the rule for all
                engine.add_static_config(
                    pattern,
                    qtyping.TFLOperationName(op),
                    activation_num_bits=bits,
                    weight_num_bits=4 if precision == "int8x4" else 8,
                    algorithm_key=algorithm or "min_max_uniform_quantize",
                )


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
    import numpy as np
    from ai_edge_litert import _pywrap_modify_model_interface, schema_py_generated
    from ai_edge_litert.tools import flatbuffer_utils

    # The quantizer puts the weights of larger models behind the flatbuffer, and that binding writes the flatbuffer
    # alone: reading brings them back in.
    model = flatbuffer_utils.read_model(str(path))
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(buffer.data, np.uint8)  # written at once, others byte by byte
    flatbuffer_utils.write_model(model, str(path))
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
                f"{graph.tensors[index].name.decode()} cannot be made {io}: its op is not quantized"
                if io != "float32"
                else f"ai-edge-quantizer gives {graph.tensors[index].name.decode()} out in integers, not in {io}",
                hint="use the recipe with float32 inputs and outputs: litert-int8"
                if io != "float32"
                else "try onnx-int8",
            )


INT8 = Static(precision="int8", summary="int8 weights and activations, float32 inputs and outputs")
INT8_IO_INT8 = Static(precision="int8", io="int8", summary="int8 throughout, inputs and outputs included")
INT8_IO_UINT8 = Static(precision="int8", io="uint8", summary="int8 inside, uint8 inputs and outputs (camera bytes)")
INT8_CLE = Static(precision="int8", repairs=("cle",), summary="int8 after cross-layer equalisation")
INT8_CLE_BIAS = Static(
    precision="int8", repairs=("cle", "bias"), summary="int8 after cross-layer equalisation, with bias correction"
)
INT8_BIAS = Static(precision="int8", repairs=("bias",), summary="int8, biases corrected for the error of the weights")
INT8_OCTAV = Static(precision="int8", repairs=("octav",), summary="int8, weights clipped where their error is least")
INT8_MSE = Static(precision="int8", repairs=("mse",), summary="int8, weights clipped by their standard deviation")
AUTO = Static(
    precision="float32",
    start="search",
    size_promise=None,
    latency_promise=None,
    summary="a precision for every op, to meet max_drop at least cost",
)
MIXED = Static(
    precision="float32",
    start="mixed",
    size_promise=None,
    latency_promise=None,
    summary="a precision for every op, as deploy.yaml's `mixed` says",
)
INT8_W4 = Static(
    precision="int8x4",
    size_promise=0.125,
    latency_promise=None,
    summary="int8 activations, int4 weights in convolutions and dense layers: smallest, often slower",
)
QAT_INT8 = Static(
    precision="int8",
    start="finetuned-w8",
    summary="litert-int8 after quantization-aware fine-tuning; no labels needed",
)
QAT_INT8_W4 = Static(
    precision="int8x4",
    size_promise=0.125,
    latency_promise=None,
    start="finetuned-w4",
    summary="litert-int8-w4 after quantization-aware fine-tuning; no labels needed",
)
INT16X8 = Static(
    precision="int16x8", latency_promise=None, summary="int16 activations, int8 weights: precise, often slow"
)
