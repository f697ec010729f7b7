"""Half precision throughout an `.onnx`, with float32 inputs and outputs: onnxruntime's own converter.

It is kept up with onnxruntime's operators (onnxconverter-common, where it comes from, is not), and leaves in float32
what has no half-precision form.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.recipes.recipe import Ingredients, Recipe

_LARGEST = float(np.finfo(np.float16).max)
# Of the range of half precision: sums inside a kernel go further than its result shows.
_HEADROOM = 0.5
_LOOKED_AT = 4  # samples; a tensor that overflows does so on most


@dataclass(frozen=True, slots=True, kw_only=True)
class Float16:
    """`guarded`: nodes near values that half precision cannot hold stay in float32."""

    guarded: bool = False
    size_promise: float = 0.5
    latency_promise: float | None = None
    summary: str = (
        "half precision inside, float32 inputs and outputs; no faster on a CPU without half-precision kernels"
    )
    format: Literal["onnx"] = "onnx"
    start: Literal["float"] = "float"
    tools: tuple[str, ...] = ("onnx", "onnxruntime")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        from pipeline.search.onnx_ops import with_node_names

        model = with_node_names(onnx.load(str(ingredients.float_model)))
        kept = [*ingredients.excluded, *(_beyond_half(model, ingredients) if self.guarded else ())]
        onnx.save(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept), str(output))

    def fallbacks(self) -> Sequence[tuple[str, Recipe]]:
        return (("with float32 where values leave the range of half precision", replace(self, guarded=True)),)

    def why_float(self, op: str) -> str:
        return "half precision is floating point too"


def _beyond_half(model: Any, ingredients: Ingredients) -> list[str]:
    """Nodes that read or write a value near the end of half precision's range, on some calibration samples."""
    import onnx
    import onnxruntime

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    given = {value.name for value in shown.graph.output}
    inner = [name for node in shown.graph.node for name in node.output if name and name not in given]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    large = {
        value.name
        for value in model.graph.initializer
        if value.data_type == onnx.TensorProto.FLOAT and _is_large(onnx.numpy_helper.to_array(value))
    }
    for sample in islice(iter(ingredients.samples()), _LOOKED_AT):
        large |= {n for n, v in zip(names, session.run(names, dict(sample)), strict=True) if _is_large(np.asarray(v))}
        large |= {name for name, value in sample.items() if _is_large(np.asarray(value))}
    return [node.name for node in model.graph.node if large & {*node.input, *node.output}]


def _is_large(values: np.ndarray[Any, Any]) -> bool:
    return values.dtype == np.float32 and bool(np.abs(values).max(initial=0.0) > _HEADROOM * _LARGEST)


FLOAT16 = Float16()
