"""Tensors of a float `.tflite` while it runs: the graph with the watched tensors as outputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from pipeline.calibration.observer import Array, Observer, Take
from pipeline.runtimes.litert import LiteRTModel


class LiteRTObserver(Observer):
    """Every float tensor that an op of the main graph produces, and the float inputs.

    Outputs rather than `preserve_all_tensors`: that keeps all tensors at once, whatever the budget.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        super().__init__(path, scratch)
        self._model = flatbuffer_utils.read_model(str(path))
        graph = self._model.subgraphs[0]
        self._outputs = [int(index) for index in graph.outputs]
        produced = [int(index) for op in graph.operators for index in op.outputs]
        self._index: dict[str, int] = {}
        self._input_indices = {int(index) for index in graph.inputs}
        for index in dict.fromkeys([*self._input_indices, *produced]):
            tensor = graph.tensors[index]
            if tensor.type == schema.TensorType.FLOAT32 and tensor.name and not tensor.isVariable:
                self._index[tensor.name.decode()] = index
        shapes = {name: graph.tensors[index].shape for name, index in self._index.items()}
        self.tensors = {
            name: 4 * int(np.prod(np.maximum([] if shape is None else shape, 1), dtype=np.int64))
            for name, shape in shapes.items()
        }
        self.derived = {}

    def watch(self, names: Sequence[str]) -> None:
        self._running: LiteRTModel | None = None  # let go of the last group's first
        graph = self._model.subgraphs[0]
        watched = {self._index[name] for name in names} - self._input_indices
        graph.outputs = np.array([*self._outputs, *sorted(watched - set(self._outputs))], np.int32)
        file = self.scratch / "observed.tflite"
        flatbuffer_utils.write_model(self._model, str(file))
        self._running = LiteRTModel(file)
        self._watched = [(name, self._index[name]) for name in names]

    def observe(self, inputs: Mapping[str, Array], take: Take) -> None:
        assert self._running is not None
        self._running.invoke(self._running.encode(inputs))  # int64 tokens are int32 in the file
        for name, index in self._watched:
            # No name for the view: the interpreter refuses to run while anybody holds one.
            take(name, self._running.interpreter.tensor(index)())
