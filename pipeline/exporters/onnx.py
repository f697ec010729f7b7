"""ONNX files as a source: checked, shapes fixed, external data taken in."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from pipeline.errors import InputError
from pipeline.exporters.source import Arrays, refuse_bad_weights
from pipeline.plugins import versions
from pipeline.quantities import size
from pipeline.runtimes.onnx import runtime_reason
from targets.records import TensorSpec

_LEAST_OPSET = 7  # of onnxruntime; of older ones it takes only the ops that have not changed since
_LEAST_IR = 4  # the first in which weights need not be inputs
_MOST_BYTES = 2**31  # what one protocol buffer, and so one .onnx file, can hold


class OnnxSource:
    """An ONNX file; onnxruntime on the CPU is the framework that its answers are taken from."""

    def __init__(self, path: Path, *, signature: str = "", scratch: Path) -> None:
        self._path = path
        self._model = _load(path)
        weights = {initializer.name for initializer in self._model.graph.initializer}
        given = [value for value in self._model.graph.input if value.name not in weights]
        if not given:
            raise InputError(
                f"{path}: the model has no inputs, its answer never changes", hint="there is nothing to do"
            )
        self.inputs = tuple(_ranked(path, value) for value in given)
        self.outputs = tuple(_spec(path, v) for v in self._model.graph.output)
        self._session = _session(path, self._model)
        self.tools: Mapping[str, str] = versions("onnx", "onnxruntime")
        refuse_bad_weights(path, ((w.name, numpy_helper.to_array(w)) for w in self._model.graph.initializer))

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        graph = self._model.graph
        for value in graph.input:
            for dimension, asked in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
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
        self._session = _session(self._path, self._model)
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
        path.write_bytes(self._model.SerializeToString(deterministic=True))


class QuantizedOnnxSource(OnnxSource):
    """An ONNX file that is deployed byte by byte as it is: free dimensions stay free, external data is taken in."""

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        pass

    def save(self, path: Path) -> None:
        if _external(onnx.load(str(self._path), load_external_data=False)):
            super().save(path)
        else:
            shutil.copyfile(self._path, path)


def _load(path: Path) -> onnx.ModelProto:
    try:
        _check_size(path)
        model = onnx.load(str(path))
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
    return model


def _check_size(path: Path) -> None:
    """Refuse more than one file can hold, before any of it is loaded."""
    total = path.stat().st_size
    if total < _MOST_BYTES:
        for place in _external(onnx.load(str(path), load_external_data=False)):
            beside = path.parent / place
            total += beside.stat().st_size if beside.is_file() else 0
    if total >= _MOST_BYTES:
        raise InputError(
            f"{path}: its weights are {size(total)}; an ONNX model that is sent to a device is one file, "
            f"which holds less than {size(_MOST_BYTES)}",
            hint="export it with float16 or int8 weights, or in parts",
        )


def _external(model: onnx.ModelProto) -> set[str]:
    """The files beside the model that hold its weights."""
    return {
        entry.value
        for tensor in model.graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _session(path: Path, model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
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
