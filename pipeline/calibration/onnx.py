"""Tensors of a float `.onnx` while it runs: the graph with every float tensor as an output."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx
import onnxruntime

from pipeline.calibration.ranges import Array


class OnnxObserver:
    """Graph optimisation is off, so that every tensor of the file exists at run time."""

    def __init__(self, path: Path) -> None:
        model = onnx.load(str(path))
        graph = model.graph
        shown = {output.name for output in graph.output}
        produced = {name for node in graph.node for name in node.output}
        for value in list(graph.value_info):
            is_float = value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
            if is_float and value.name in produced and value.name not in shown:
                graph.output.append(value)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs() if output.type == "tensor(float)"]

    def observe(self, inputs: Mapping[str, Array]) -> Iterable[tuple[str, Array]]:
        yield from ((name, array) for name, array in inputs.items() if array.dtype.kind == "f")
        yield from zip(self._names, self._session.run(self._names, dict(inputs)), strict=True)
