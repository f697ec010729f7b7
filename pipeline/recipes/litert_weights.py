"""Weights quantized and activations left in float in the file, with ai-edge-quantizer on the float `.tflite`.

*Dynamic*: LiteRT's hybrid kernels round the activations while they run and compute in integers. *Weight-only*: a
DEQUANTIZE before the op, which computes in float32. *Blocks*: one scale for so many weights of an output channel.
LiteRT has blocks in its hybrid dense kernels only (its DEQUANTIZE takes none: the answers are rubbish, 0 dB), so there
the activations are rounded as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ConversionFailed
from pipeline.recipes.litert_static import with_signatures
from pipeline.recipes.recipe import Ingredients

# TensorFlow's own converter leaves smaller constants alone: little is gained and much may be lost.
TENSORFLOW_LEAST_WEIGHTS = 1024
_BLOCK_OPS = ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")
# All that ai-edge-quantizer can cast to float16.
FLOAT16_OPS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "CONV_2D_TRANSPOSE", "EMBEDDING_LOOKUP")
Kind = Literal["float16", "dynamic-int8", "weight-int8", "weight-int4"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One rule for the weights of every op that has one; `block` is for the dense layers of `weight-int4`."""

    kind: Kind
    summary: str
    size_promise: float
    latency_promise: float | None = None
    block: int = 0
    least_weights: int = 0
    format: Literal["tflite"] = "tflite"
    start: Literal["float"] = "float"
    tools: tuple[str, ...] = ("ai-edge-quantizer", "ai-edge-litert")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        from ai_edge_quantizer import quantizer

        engine = quantizer.Quantizer(str(with_signatures(ingredients)))
        _RULES[self.kind](self, engine, ingredients.float_model)
        model = engine.quantize({}).quantized_model
        if not model:
            raise ConversionFailed("ai-edge-quantizer gave no model", hint="try litert-float16")
        output.write_bytes(model)

    def why_float(self, op: str) -> str:
        if self.kind == "dynamic-int8":
            least = f" with {self.least_weights} elements or more" if self.least_weights else ""
            return f"dynamic range quantizes only ops with constant weights{least} that have a hybrid kernel"
        return f"only stored weights are {self.kind.removeprefix('weight-')}; the CPU computes in float32"


def _float16(recipe: Weights, engine: Any, model: Path) -> None:
    from ai_edge_quantizer import qtyping

    for op in FLOAT16_OPS:
        engine.add_weight_only_config(
            ".*",
            qtyping.TFLOperationName(op),
            num_bits=16,
            granularity=qtyping.QuantGranularity.TENSORWISE,
            algorithm_key="float_casting",
        )


def _dynamic(recipe: Weights, engine: Any, model: Path) -> None:
    from ai_edge_quantizer import qtyping

    engine.update_quantization_recipe(
        ".*",
        qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE
            ),
            compute_precision=qtyping.ComputePrecision.INTEGER,
            min_weight_elements=recipe.least_weights,
        ),
    )


def _int8(recipe: Weights, engine: Any, model: Path) -> None:
    from ai_edge_quantizer import qtyping

    engine.add_weight_only_config(".*", qtyping.TFLOperationName.ALL_SUPPORTED, num_bits=8)


def _int4(recipe: Weights, engine: Any, model: Path) -> None:
    """int8 for all, and int4 for the ops that have it: a later rule for some ops goes before the one for all."""
    from ai_edge_quantizer import qtyping

    _int8(recipe, engine, model)
    if not recipe.block:
        for op in ("BATCH_MATMUL", "CONV_2D", "FULLY_CONNECTED", "EMBEDDING_LOOKUP"):
            engine.add_weight_only_config(".*", qtyping.TFLOperationName(op), num_bits=4)
        return
    names = _divisible(model, recipe.block)
    if not names:
        raise ConversionFailed(
            f"no dense layer or embedding of this model has inputs in multiples of {recipe.block}",
            hint="try litert-weight-int4 or litert-weight-int8",
        )
    for op in _BLOCK_OPS:
        engine.add_dynamic_config(
            f"^(?:{'|'.join(names)});$",
            qtyping.TFLOperationName(op),
            num_bits=4,
            granularity=qtyping.QuantGranularity[f"BLOCKWISE_{recipe.block}"],
        )


def _divisible(path: Path, block: int) -> list[str]:
    """Patterns of the scopes of ops with float weights whose rows are made of whole blocks."""
    import re

    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    from pipeline.recipes.litert_bias import float_constant, op_kind

    model = flatbuffer_utils.read_model(str(path))
    kinds = {getattr(schema.BuiltinOperator, name) for name in _BLOCK_OPS}
    found = []
    for graph in model.subgraphs:
        for op in graph.operators:
            weights = float_constant(model, graph, op.inputs[1]) if op_kind(model, op) in kinds else None
            if weights is not None and weights.shape[-1] % block == 0:
                found.append(re.escape(";".join(graph.tensors[index].name.decode() for index in op.outputs)))
    return found


_RULES: dict[Kind, Callable[[Weights, Any, Path], None]] = {
    "float16": _float16,
    "dynamic-int8": _dynamic,
    "weight-int8": _int8,
    "weight-int4": _int4,
}


def block_promise(bits: int, block: int) -> float:
    """Size of weights with one 32-bit scale a block against float32's."""
    return (bits + (32 / block if block else 0)) / 32


def _blocks(block: int) -> Weights:
    return Weights(
        kind="weight-int4",
        block=block,
        size_promise=block_promise(4, block),
        summary=f"int4 weights in blocks of {block} in dense layers and embeddings, whose activations are rounded to "
        "int8 while running; int8 weights elsewhere",
    )


FLOAT16 = Weights(kind="float16", size_promise=0.5, summary="weights stored in half precision, computed in float32")
DYNAMIC_INT8 = Weights(
    kind="dynamic-int8", size_promise=0.25, least_weights=TENSORFLOW_LEAST_WEIGHTS, summary="see litert_tensorflow"
)
DYNAMIC_INT8_ALL = Weights(
    kind="dynamic-int8",
    size_promise=0.25,
    latency_promise=0.5,
    summary="litert-dynamic-int8 of small weights as well (ai-edge-quantizer)",
)
WEIGHT_INT8 = Weights(
    kind="weight-int8",
    size_promise=0.25,
    summary="int8 weights per channel, computed in float32: small, as fast as float",
)
WEIGHT_INT4 = Weights(
    kind="weight-int4",
    size_promise=0.125,
    summary="int4 weights per channel where LiteRT has them, else int8, computed in float32",
)
WEIGHT_INT4_B32, WEIGHT_INT4_B64, WEIGHT_INT4_B128 = _blocks(32), _blocks(64), _blocks(128)
