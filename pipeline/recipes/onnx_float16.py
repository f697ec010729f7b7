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
_NAMED = 3  # nodes in a note
_LOOKED_AT = 4  # samples; a tensor that overflows does so on most


@dataclass(frozen=True, slots=True, kw_only=True)
class Float16:
    """Nodes near values that half precision cannot hold stay in float32.

    That the answers are finite here proves nothing: a CPU without half-precision kernels computes in float32, and a
    device with them overflows.
    """

    infer_shapes: bool = True
    size_promise: float = 0.5
    latency_promise: float | None = None
    summary: str = (
        "half precision inside, float32 inputs and outputs; no faster on a CPU without half-precision kernels"
    )
    format: Literal["onnx"] = "onnx"
    start: Literal["float"] = "float"
    tools: tuple[str, ...] = ("onnx", "onnxruntime")

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        from pipeline import onnx_file
        from pipeline.search.onnx_ops import with_node_names

        graph = with_node_names(onnx_file.read_graph(ingredients.float_model))
        kept = _beyond_half(graph, ingredients)
        if kept:
            ingredients.note(
                f"{', '.join(kept[:_NAMED])}{' …' if len(kept) > _NAMED else ''}: kept in float32, because "
                f"values come near the end of half precision ({len(kept)} of {len(graph.graph.node)} nodes)"
            )
        model = with_node_names(onnx_file.read(ingredients.float_model))
        # Inference needs the model in one piece; a large one has its shapes from the export.
        whole = onnx_file.total_bytes(model) <= onnx_file.LARGEST_BYTES
        halved = convert_float_to_float16(
            model,
            keep_io_types=True,
            disable_shape_infer=not (self.infer_shapes and whole),
            node_block_list=[*ingredients.excluded, *kept],
        )
        _drop_round_trips(halved.graph)
        onnx_file.write(halved, output)

    def fallbacks(self) -> Sequence[tuple[str, Recipe]]:
        return (("without shape inference", replace(self, infer_shapes=False)),)

    def why_float(self, op: str) -> str:
        return "half precision is floating point too"


def _drop_round_trips(graph: Any) -> None:
    """Join neighbours that both stayed in float32: the converter puts a cast to half precision and back in between."""
    import onnx

    def to(node: Any) -> int:
        return next((a.i for a in node.attribute if a.name == "to"), 0) if node.op_type == "Cast" else 0

    narrowed = {n.output[0]: n.input[0] for n in graph.node if to(n) == onnx.TensorProto.FLOAT16}
    wide = {
        n.output[0]: narrowed[n.input[0]]
        for n in graph.node
        if to(n) == onnx.TensorProto.FLOAT and n.input[0] in narrowed
    }
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = wide.get(name, name)
    kept = {value.name for value in graph.output}
    read = {name for node in graph.node for name in node.input} | kept
    for casts in (wide, narrowed):
        for node in [n for n in graph.node if n.output[0] in casts and n.output[0] not in read]:
            graph.node.remove(node)
        read = {name for node in graph.node for name in node.input} | kept


def _beyond_half(model: Any, ingredients: Ingredients) -> list[str]:
    """Nodes that read or write a value near the end of half precision's range, on some calibration samples."""
    import onnx
    import onnxruntime

    from pipeline import onnx_file

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    given = {value.name for value in shown.graph.output}
    inner = [name for node in shown.graph.node for name in node.output if name and name not in given]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    folder = ingredients.float_model.parent
    session = onnx_file.session(shown, options, folder)
    names = [output.name for output in session.get_outputs()]
    large = {
        value.name
        for value in model.graph.initializer
        if value.data_type == onnx.TensorProto.FLOAT and _is_large(onnx_file.array(value, folder))
    }
    for sample in islice(iter(ingredients.samples()), _LOOKED_AT):
        large |= {n for n, v in zip(names, session.run(names, dict(sample)), strict=True) if _is_large(np.asarray(v))}
        large |= {name for name, value in sample.items() if _is_large(np.asarray(value))}
    return [node.name for node in model.graph.node if large & {*node.input, *node.output}]


def _is_large(values: np.ndarray[Any, Any]) -> bool:
    return values.dtype == np.float32 and bool(np.abs(values).max(initial=0.0) > _HEADROOM * _LARGEST)


FLOAT16 = Float16()
