"""`.onnx` files on onnxruntime's CPU provider."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from pipeline.errors import ConversionFailed
from pipeline.runtimes import pixels, state
from pipeline.runtimes.runtime import Array, HostModel
from targets.agent.edge.runtimes import onnx_options
from targets.records import TensorSpec

_STATUS = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_LOADING = re.compile(r"^Load model from \S+ failed: ?")
_CPP_PLACE = re.compile(r"/\S+\.(?:cc|h):\d+ .*?\)(?: const)? (?=[A-Z])")
_DTYPES = {"float": "float32", "double": "float64"}


class OnnxModel(HostModel):
    """An `.onnx` file in a session of its own."""

    def __init__(self, path: Path, *, threads: int = 2) -> None:
        options = onnx_options(onnxruntime, threads)
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class per status code, all direct children of Exception
            reason = runtime_reason(error)
            raise ConversionFailed(
                f"{path.name}: onnxruntime does not load it: {reason}", hint="the conversion is at fault"
            ) from None
        written = self._session.get_modelmeta().custom_metadata_map
        self.state = state.parse(written.get(state.KEY, ""))
        self.pixels = pixels.parse(written.get(pixels.KEY, ""))
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self.outputs = tuple(_spec(value) for value in self._session.get_outputs())

    def invoke(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        names = [spec.name for spec in self.outputs]
        feeds = {spec.name: inputs[spec.name] for spec in self.inputs}
        return {name: np.asarray(value) for name, value in zip(names, self._session.run(names, feeds), strict=True)}


def runtime_reason(error: Exception) -> str:
    """onnxruntime's own words without its status codes and C++ signatures."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return _CPP_PLACE.sub("", _LOADING.sub("", _STATUS.sub("", first)))


def _spec(value: onnxruntime.NodeArg) -> TensorSpec:
    written = value.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorSpec(name=value.name, shape=shape, dtype=_DTYPES.get(written, written))
