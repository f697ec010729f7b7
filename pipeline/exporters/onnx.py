"""ONNX files as a source: checked, shapes fixed, external data taken in, or kept apart where it is too much."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError

from pipeline import onnx_file
from pipeline.errors import InputError
from pipeline.exporters.source import Arrays, refuse_bad_weights
from pipeline.model_files import beside, total_bytes
from pipeline.plugins import versions
from pipeline.quantities import size
from pipeline.runtimes.onnx import runtime_reason
from targets.records import TensorSpec

_LEAST_OPSET = 7  # of onnxruntime; of older ones it takes only the ops that have not changed since
_LEAST_IR = 4  # the first in which weights need not be inputs
_MOST_BYTES = 2**31 - 1  # what one protocol buffer, and so one .onnx file, can hold


class OnnxSource:
    """An ONNX file; onnxruntime on the CPU is the framework that its answers are taken from."""

    def __init__(self, path: Path, *, signature: str = "", scratch: Path) -> None:
        self._path = path
        self._model, self._folder = _load(path, scratch)
        weights = {initializer.name for initializer in self._model.graph.initializer}
        given = [value for value in self._model.graph.input if value.name not in weights]
        if not given:
            raise InputError(
                f"{path}: the model has no inputs, its answer never changes", hint="there is nothing to do"
            )
        self.inputs = tuple(_ranked(path, value) for value in given)
        self.outputs = tuple(_spec(path, v) for v in self._model.graph.output)
        self._session = _session(path, self._model, self._folder)
        self.tools: Mapping[str, str] = versions("onnx", "onnxruntime")
        refuse_bad_weights(path, ((w.name, onnx_file.array(w, self._folder)) for w in self._model.graph.initializer))

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        graph = self._model.graph
        for value in graph.input:
            for dimension, asked in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
                if asked >= 0:
                    dimension.dim_value = asked
        # Before IR version 4 every weight had to be an input too, which one may override: nothing can be folded then,
        # and what is folded all the same leaves an input that nobody feeds.
        for value in [value for value in graph.input if value.name not in shapes]:
            graph.input.remove(value)
        self._model.ir_version = max(_LEAST_IR, self._model.ir_version)
        # Shapes written for the free dimensions would contradict the fixed ones: let inference fill them in again.
        del graph.value_info[:]
        for value in graph.output:
            for dimension in value.type.tensor_type.shape.dim:
                if not dimension.HasField("dim_value"):
                    dimension.Clear()
        self._model = onnx.shape_inference.infer_shapes(self._model, data_prop=True)
        self._session = _session(self._path, self._model, self._folder)
        self.inputs = tuple(_spec(self._path, v) for v in self._model.graph.input if v.name in shapes)
        self.outputs = tuple(_spec(self._path, v) for v in self._model.graph.output)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        names = [output.name for output in self.outputs]
        try:
            return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))
        except Exception as error:  # as in `_session`
            given = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            raise InputError(
                f"{self._path}: onnxruntime cannot run it on inputs of {given}: {runtime_reason(error)}",
                hint="check that shapes and values are those the model was made for",
            ) from None

    def save(self, path: Path) -> None:
        onnx_file.write(self._model, path, self._folder)


class QuantizedOnnxSource(OnnxSource):
    """An ONNX file that is deployed byte by byte as it is: free dimensions stay free, external data as in its base."""

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        pass

    def save(self, path: Path) -> None:
        if beside("onnx", self._path):
            super().save(path)
        else:
            shutil.copyfile(self._path, path)


def _load(path: Path, scratch: Path) -> tuple[onnx.ModelProto, Path]:
    """The model, and the folder of those of its weights that are not in it: more than one file can hold, they go into
    one of ours in `scratch`, and never into memory."""
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(
            f"{path}: {size(path.stat().st_size)} in one .onnx file, which holds {size(2**31)} at most",
            hint="export it with its weights in a file beside it, such as onnx.save(…, save_as_external_data=True)",
        )
    try:
        large = total_bytes("onnx", path) > onnx_file.LARGEST_BYTES
        model = onnx_file.read_graph(path) if large else onnx_file.read(path)
        if large:
            onnx_file.write(model, scratch / "gathered", path.parent)
    except DecodeError:
        raise InputError(
            f"{path}: no ONNX model, or one that is cut off ({path.stat().st_size} bytes)",
            hint="fetch or export it again and compare the size",
        ) from None
    except (FileNotFoundError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"{path}: its external data cannot be read: {error}",
            hint="the weights are in a second file that must lie beside the .onnx file under its original name",
        ) from None
    for part, what in ((model.graph.node, "nodes"), (model.graph.output, "outputs"), (model.opset_import, "opset")):
        if not part:
            raise InputError(f"{path}: the model has no {what}: cut off, or no ONNX model", hint="export it again")
    return model, scratch


def _session(path: Path, model: onnx.ModelProto, folder: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnx_file.session(model, options, folder)
    except Exception as error:  # onnxruntime has a class per status code, all direct children of Exception
        reason = runtime_reason(error)
        raise InputError(
            f"{path}: onnxruntime {onnxruntime.__version__} does not load it: {reason}",
            hint=_advice(reason, model),
        ) from None


def _advice(reason: str, model: onnx.ModelProto) -> str:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if "Could not find an implementation" in reason and 0 < opset < _LEAST_OPSET:
        return (
            f"its opset is {opset}, onnxruntime takes {_LEAST_OPSET} and later: export it anew, or try "
            "onnx.version_converter.convert_version(model, 17)"
        )
    return "check it with onnx.checker.check_model, or export it with an opset and ops that this runtime knows"


def _ranked(path: Path, value: onnx.ValueInfoProto) -> TensorSpec:
    found = _spec(path, value)
    if not value.type.tensor_type.HasField("shape"):
        raise InputError(
            f"{path}: input {value.name!r} has no known rank", hint="export it with the rank of its inputs"
        )
    return found


def _spec(path: Path, value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type" or value.type.tensor_type.elem_type == onnx.TensorProto.STRING:
        what = "text" if kind == "tensor_type" else str(kind).removesuffix("_type")
        raise InputError(
            f"{path}: {value.name!r} is {what}; only numeric tensors are supported", hint="cut that part off"
        )
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name
    return TensorSpec(name=value.name, shape=shape, dtype=dtype)
