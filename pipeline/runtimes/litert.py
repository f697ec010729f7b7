"""`.tflite` files on LiteRT (ai-edge-litert)."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from pipeline.errors import ConversionFailed
from pipeline.runtimes.pixels import pixels_of
from pipeline.runtimes.runtime import Array, HostModel
from pipeline.runtimes.state import state_of
from targets.records import TensorSpec


class LiteRTModel(HostModel):
    """A `.tflite` file, used through its first signature, or by tensor names when it has none."""

    def __init__(self, path: Path, *, threads: int = 2, preserve_all_tensors: bool = False) -> None:
        self._load = partial(
            Interpreter, str(path), num_threads=threads, experimental_preserve_all_tensors=preserve_all_tensors
        )
        try:
            self.interpreter = self._load()
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ConversionFailed(
                f"{path.name}: LiteRT does not load it: {error}", hint="the conversion is at fault"
            ) from None
        signatures = self.interpreter.get_signature_list()
        if signatures:
            runner = self.interpreter.get_signature_runner(next(iter(signatures)))
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
        else:
            inputs = {detail["name"]: detail for detail in self.interpreter.get_input_details()}
            outputs = {detail["name"]: detail for detail in self.interpreter.get_output_details()}
        self.state = state_of("tflite", path)
        self.pixels = pixels_of("tflite", path)
        operations = self.interpreter._get_ops_details()
        self._has_resources = any(operation["op_name"] == "VAR_HANDLE" for operation in operations)
        self._fresh = True
        self._input_indices = {name: int(detail["index"]) for name, detail in inputs.items()}
        self._output_indices = {name: int(detail["index"]) for name, detail in outputs.items()}
        self._declared = {name: tuple(int(size) for size in detail["shape"]) for name, detail in inputs.items()}
        self._sizes = dict(self._declared)
        self.inputs = tuple(_spec(name, detail) for name, detail in inputs.items())
        self.outputs = tuple(_spec(name, detail) for name, detail in outputs.items())

    def invoke(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        # A fused LSTM keeps its state in variable tensors from one invoke() to the next; samples are independent.
        self.interpreter.reset_all_variables()
        if self._has_resources and not self._fresh:
            # Resource variables are emptied by that, not set to what the model's own initialiser (CALL_ONCE) gives.
            self.interpreter = self._load()
            self.interpreter.allocate_tensors()
            self._sizes = dict(self._declared)
        self._fresh = False
        self._resize({name: np.shape(array) for name, array in inputs.items()})
        for name, index in self._input_indices.items():
            self.interpreter.set_tensor(index, inputs[name])
        self.interpreter.invoke()
        return {name: self.interpreter.get_tensor(index) for name, index in self._output_indices.items()}

    def _resize(self, wanted: Mapping[str, tuple[int, ...]]) -> None:
        """Before the tensors are allocated, give the free dimensions the sizes of this sample."""
        free = {spec.name for spec in self.inputs if -1 in spec.shape}
        new = {n: index for n, index in self._input_indices.items() if n in free and wanted[n] != self._sizes[n]}
        if not new:
            return
        for name, index in new.items():
            self.interpreter.resize_tensor_input(index, wanted[name], strict=True)
        self.interpreter.allocate_tensors()
        self._sizes = dict(wanted)


def _spec(name: str, detail: Mapping[str, Any]) -> TensorSpec:
    scale, zero_point = detail["quantization"]
    return TensorSpec(
        name=name,
        shape=tuple(int(size) for size in _free(detail)),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _free(detail: Mapping[str, Any]) -> Any:
    """The shape with -1 for what is free; converters leave the signature out where nothing is."""
    signature = detail.get("shape_signature", ())
    return signature if len(signature) == len(detail["shape"]) else detail["shape"]
