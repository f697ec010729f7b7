"""A loaded model on this host: real-valued samples in, real-valued answers out, whatever the file's own data types.

Integer inputs and outputs with a scale are affine-quantized at this boundary, as an application on the device would:
q = round(x / scale) + zero_point, clipped to the type's range (Jacob et al. 2018, arXiv:1712.05877, eq. 1).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pipeline.plugins import load_plugin
from pipeline.runtimes.pixels import Affine
from pipeline.runtimes.state import unrolled
from targets.records import TensorSpec

Array = np.ndarray[Any, Any]


class HostModel(ABC):
    """One model file, loaded. `inputs` and `outputs` are the file's, names are the source model's.

    Inputs in `pixels` (see `pipeline.runtimes.pixels`) are images' bytes, of which real values are made inside.
    With a `state` (see `pipeline.runtimes.state`) a sample is a sequence and is answered step by step.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: Mapping[str, str] = MappingProxyType({})
    pixels: Mapping[str, Affine] = MappingProxyType({})

    @abstractmethod
    def invoke(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once with arrays in the file's own data types; stateful models start from their initial state."""

    def encode(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """A real-valued sample in the data types of the file's inputs; of a sequence its last step, which has the
        most of a state to get wrong."""
        return self._encoded(self.steps(sample)[-1])

    def steps(self, sample: Mapping[str, Array]) -> list[Mapping[str, Array]]:
        """What each step of a sequence takes, with the state that this model has then; else the sample alone."""
        if not self.state:
            return [sample]
        taken: list[Mapping[str, Array]] = []

        def run(step: dict[str, Array]) -> dict[str, Array]:
            taken.append(step)
            return self._answered(step)

        unrolled(run, sample, self.inputs, self.state)
        return taken

    def answer(self, sample: Mapping[str, Array]) -> dict[str, Array]:
        """Run a real-valued sample and return real-valued outputs."""
        if self.state:
            return unrolled(self._answered, sample, self.inputs, self.state)
        return self._answered(sample)

    def _encoded(self, step: Mapping[str, Array]) -> dict[str, Array]:
        return {spec.name: self._of_type(step[spec.name], spec) for spec in self.inputs}

    def _of_type(self, array: Array, spec: TensorSpec) -> Array:
        if spec.name in self.pixels and array.dtype != np.dtype(spec.dtype):
            return self.pixels[spec.name].bytes_of(array)
        return quantized(array, spec)

    def _answered(self, step: Mapping[str, Array]) -> dict[str, Array]:
        raw = self.invoke(self._encoded(step))
        return {spec.name: dequantized(raw[spec.name], spec) for spec in self.outputs}


def open_model(format: str, path: Path, *, threads: int = 2) -> HostModel:
    """Load a `.tflite` or `.onnx` file with its runtime."""
    from pipeline.runtimes import RUNTIMES

    model: HostModel = load_plugin(RUNTIMES[format])(path, threads=threads)
    return model


def quantized(array: Array, spec: TensorSpec) -> Array:
    """`array` in the data type of `spec`, through its scale and zero point where it has them."""
    dtype = np.dtype(spec.dtype)
    if array.dtype == dtype or spec.scale == 0:
        return array.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    encoded: Array = np.clip(np.rint(array / spec.scale) + spec.zero_point, limits.min, limits.max).astype(dtype)
    return encoded


def dequantized(array: Array, spec: TensorSpec) -> Array:
    """The real values of an output tensor, float32; tensors without a scale are returned unchanged."""
    if spec.scale == 0:
        return array
    real: Array = (array.astype(np.float32) - spec.zero_point) * np.float32(spec.scale)
    return real
