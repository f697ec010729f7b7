"""Tensors of a float `.onnx` while it runs: the graph with the watched tensors as outputs."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from pipeline import onnx_file
from pipeline.calibration.observer import Array, Derived, Observer, Take
from pipeline.model_files import total_bytes
from pipeline.runtimes.state import KEY, parse, unrolled
from targets.records import TensorSpec

# What only moves values, or repeats none and drops none, has the distribution of its input.
_MOVES = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"}


class OnnxObserver(Observer):
    """Every float tensor that a node produces, and the float inputs."""

    def __init__(self, path: Path, scratch: Path) -> None:
        super().__init__(path, scratch)
        self._model, self._folder = onnx_file.read_graph(path), path.parent
        graph = self._model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        known = {value.name: value for value in (*graph.value_info, *graph.output)}
        inputs = {value.name: value for value in graph.input if value.name not in self._constants}
        floats: dict[str, int | None] = {name: _bytes(v) for name, v in inputs.items() if _is_float(v)}
        self._inputs = set(inputs)
        self._state = parse(next((entry.value for entry in self._model.metadata_props if entry.key == KEY), ""))
        self._specs = tuple(map(_spec, inputs.values()))
        self.can_run_ahead = not self._state
        self.derived = {}
        for node in graph.node:
            made = self._derived(node)
            for name in node.output:
                if name not in known or not _is_float(known[name]):
                    continue
                if made and (made.source in floats or made.source in self.derived):
                    self.derived[name] = made
                else:
                    floats[name] = _bytes(known[name])
        largest = max((size for size in floats.values() if size is not None), default=0)
        self.tensors = {name: largest if size is None else size for name, size in floats.items()}

    def _derived(self, node: onnx.NodeProto) -> Derived | None:
        if node.op_type in _MOVES:
            return Derived(source=node.input[0])
        if node.op_type == "Relu":
            return Derived(source=node.input[0], low=0.0)
        if node.op_type == "Clip":
            bounds = [self._constants.get(name) if name else None for name in node.input[1:3]]
            if all(bound is not None for bound, name in zip(bounds, node.input[1:3], strict=True) if name):
                values = [None if bound is None else float(onnx_file.array(bound, self._folder)) for bound in bounds]
                low, high = (*values, None, None)[:2]
                return Derived(
                    source=node.input[0],
                    low=-np.inf if low is None else low,
                    high=np.inf if high is None else high,
                )
        return None

    @property
    def model_bytes(self) -> int:
        return total_bytes("onnx", self.path)

    def watch(self, names: Sequence[str]) -> None:
        self._session: Any = None  # let go of the last group's first
        self._watched_inputs = [name for name in names if name in self._inputs]
        self._names = [name for name in names if name not in self._inputs]
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        del model.graph.output[:]
        known = {value.name: value for value in (*self._model.graph.value_info, *self._model.graph.output)}
        # A model needs an output, also when only its inputs are watched.
        shown = dict.fromkeys([*self._names, *self._state])
        model.graph.output.extend([known[name] for name in shown] or self._model.graph.output)
        self._watching = model

    def _open(self, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # it would keep the peak of every layer
        options.intra_op_num_threads = threads
        # Its threads would burn what the counting between two samples needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnx_file.session(self._watching, options, self._folder)
        self._watching = onnx.ModelProto()

    def observe(self, inputs: Mapping[str, Array], take: Take) -> None:
        if self._state:
            unrolled(lambda step: self._observe(step, take), inputs, self._specs, self._state)
        else:
            self._observe(inputs, take)

    def observe_all(self, samples: Iterable[tuple[Mapping[str, Array], Take]], *, ahead: bool) -> None:
        if not (ahead and self.can_run_ahead):
            super().observe_all(samples, ahead=False)
            return
        # The runtime lets go of Python's lock while it computes; the core that counts is then not its own.
        self._open(max(1, _THREADS - 1))
        with ThreadPoolExecutor(max_workers=1) as pool:
            before: tuple[Mapping[str, Array], Take, Future[dict[str, Any]]] | None = None
            for inputs, take in samples:
                running = pool.submit(self._run, inputs)
                if before is not None:
                    self._hand_over(*before)
                before = inputs, take, running
            if before is not None:
                self._hand_over(*before)

    def _observe(self, inputs: Mapping[str, Array], take: Take) -> dict[str, Array]:
        values = self._run(inputs)
        self._take(inputs, values, take)
        return {name: values[name].numpy() for name in self._state}

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Any]:
        fetched = list(dict.fromkeys([*self._names, *self._state]))
        if not fetched:
            return {}
        if self._session is None:
            self._open(_THREADS)
        feeds = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
        return dict(zip(fetched, self._session.run_with_ort_values(fetched, feeds), strict=True))

    def _hand_over(self, inputs: Mapping[str, Array], take: Take, running: "Future[dict[str, Any]]") -> None:
        self._take(inputs, running.result(), take)

    def _take(self, inputs: Mapping[str, Array], values: Mapping[str, Any], take: Take) -> None:
        for name in self._watched_inputs:
            take(name, inputs[name])
        for name in self._names:
            take(name, values[name].numpy())


_THREADS = 2


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name
    return TensorSpec(name=value.name, shape=shape, dtype=dtype)


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _bytes(value: onnx.ValueInfoProto) -> int | None:
    """Of its values; None when a dimension is not known."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in value.type.tensor_type.shape.dim]
    return 4 * int(np.prod(sizes, dtype=np.int64)) if all(size > 0 for size in sizes) else None
