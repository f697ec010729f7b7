"""Weight-only quantization of matrix products: onnxruntime's MatMulNBits, with one scale and zero point per block.

Dense layers written as Gemm become MatMul and Add first, which is what MatMulNBits replaces. Embeddings (Gather) have
an int4 form only, and that needs data types of opset 21: the quantizer would stamp 21 on the file, which breaks ops
that changed since, so the model is really converted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import ConversionFailed
from pipeline.recipes.litert_weights import block_promise
from pipeline.recipes.recipe import Ingredients, Recipe

_INT4_OPSET = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWeights:
    """`bits` (8 or 4) for each weight, blocks of `block` along the inputs; `embeddings`: of Gathers as well."""

    bits: Literal[8, 4]
    block: int
    embeddings: bool
    summary: str
    size_promise: float
    latency_promise: float | None = None
    format: Literal["onnx"] = "onnx"
    start: Literal["float"] = "float"
    tools: tuple[str, ...] = ("onnx", "onnxruntime")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        import onnx
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
        from onnxruntime.quantization.onnx_model import ONNXModel

        from pipeline import onnx_file
        from pipeline.search.onnx_ops import with_node_names

        model = with_node_names(onnx_file.read(ingredients.float_model))
        ops: tuple[str, ...] = ("MatMul",)
        if self.embeddings and _has_embeddings(model):
            ops = ("MatMul", "Gather")
            if _opset(model) < _INT4_OPSET:
                model = onnx.version_converter.convert_version(model, _INT4_OPSET)
        rewritten = ONNXModel(model)
        rewritten.replace_gemm_with_matmul()
        engine = MatMulNBitsQuantizer(
            rewritten.model,
            bits=self.bits,
            block_size=self.block,
            # A zero point per block costs 1/8 or 1/16 of its scale and uses all the levels of a lopsided block.
            is_symmetric=False,
            op_types_to_quantize=ops,
            nodes_to_exclude=list(ingredients.excluded),
        )
        engine.process()
        made = engine.model.model
        if not any(node.op_type in ("MatMulNBits", "GatherBlockQuantized") for node in made.graph.node):
            raise ConversionFailed(
                "has no matrix product with constant weights, which is all that MatMulNBits can replace",
                hint="try onnx-int8, or onnx-float16",
            )
        onnx_file.write(made, output)

    def fallbacks(self) -> Sequence[tuple[str, Recipe]]:
        return (("with embeddings in float", replace(self, embeddings=False)),) if self.embeddings else ()

    def why_float(self, op: str) -> str:
        return f"MatMulNBits replaces matrix products with constant weights, not {op}"


def _has_embeddings(model: Any) -> bool:
    import onnx

    floats = {value.name for value in model.graph.initializer if value.data_type == onnx.TensorProto.FLOAT}
    return any(node.op_type == "Gather" and node.input[0] in floats for node in model.graph.node)


def _opset(model: Any) -> int:
    return next((int(opset.version) for opset in model.opset_import if opset.domain in ("", "ai.onnx")), 0)


def _made(bits: Literal[8, 4], block: int) -> BlockWeights:
    also = " and embeddings" if bits == 4 else ""
    return BlockWeights(
        bits=bits,
        block=block,
        embeddings=bits == 4,
        size_promise=block_promise(bits, block),
        summary=f"int{bits} weights of matrix products{also} in blocks of {block} (MatMulNBits), for language models",
    )


INT8_B32, INT8_B64, INT8_B128 = _made(8, 32), _made(8, 64), _made(8, 128)
INT4_B32, INT4_B64, INT4_B128 = _made(4, 32), _made(4, 64), _made(4, 128)
