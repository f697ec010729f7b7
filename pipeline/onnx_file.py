"""`.onnx` files in the worker: read, written, and run, also where their weights lie beside them (`model_files`)."""

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, numpy_helper
from onnx.external_data_helper import set_external_data, uses_external_data

from pipeline.errors import InputError
from pipeline.model_files import is_ours, link

# What one protocol buffer holds, less what the graph itself may take. Smaller for tests, and for whoever wants devices
# to map smaller models' weights into memory instead of reading them.
LARGEST_BYTES = int(os.environ.get("EDGE_DEPLOY_LARGEST_ONNX_BYTES", 2**31 - 2**26))
# Shapes and axes are small, and shape inference reads them: they stay in the file.
_LEAST_BYTES = 1024
_PAGE_BYTES = 4096  # where the specification wants them to begin, so that they can be mapped
_CHUNK_BYTES = 1 << 24
# onnxruntime's option: where a model that is given in memory finds its weights.
_FOLDER = "session.model_external_initializers_file_folder_path"


def read(path: Path) -> ModelProto:
    """All of it in memory. onnx itself refuses weights in a file that has a second name, as ours have.

    Raises:
        InputError: what lies beside it is missing or too short.
    """
    model = read_graph(path)
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            _take_in(tensor, path.parent)
    return model


def read_graph(path: Path) -> ModelProto:
    """Without the weights that lie beside it."""
    return onnx.load(str(path), load_external_data=False)


def write(model: ModelProto, path: Path, folder: Path | None = None) -> None:
    """Write a model to a file, and to one beside it what does not go into the first; `model` then names that too.

    Args:
        folder: where the files are that the model's tensors lie in already. Those of ours get a second name beside
            `path`, others are rewritten into one of ours.

    Raises:
        InputError: such a file is missing, or shorter than the model says.
    """
    here, far = [], []
    for tensor in _tensors(model):
        if not uses_external_data(tensor):
            here.append(tensor)
        elif is_ours(name := _external(tensor)["location"]):
            if folder is not None and folder != path.parent:
                link(folder / name, path.parent / name)
        else:
            far.append(tensor)
    if far or sum(map(_size, here)) > LARGEST_BYTES:
        _move(far + (here if sum(map(_size, here)) > LARGEST_BYTES else []), folder, path.parent)
    path.write_bytes(model.SerializeToString(deterministic=True))


def session(
    model: ModelProto, options: onnxruntime.SessionOptions, folder: Path | None = None
) -> onnxruntime.InferenceSession:
    """Of a model in memory, whose other weights lie in `folder`."""
    if folder is not None:
        options.add_session_config_entry(_FOLDER, str(folder))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def array(tensor: TensorProto, folder: Path) -> np.ndarray[Any, Any]:
    """A tensor's values; those that lie in `folder` are mapped, not read.

    Raises:
        InputError: the file there is missing or too short.
    """
    if not uses_external_data(tensor):
        return numpy_helper.to_array(tensor)
    kind = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    mapped = _mapped(tensor, folder)
    if math.prod(tensor.dims) * kind.itemsize == mapped.size:
        return mapped.view(kind).reshape(tuple(tensor.dims))
    whole = TensorProto()  # of 4 bits
    whole.CopyFrom(tensor)
    _take_in(whole, folder)
    return numpy_helper.to_array(whole)


def _mapped(tensor: TensorProto, folder: Path) -> np.ndarray[Any, Any]:
    told, size = _external(tensor), _size(tensor)
    place = Path(told["location"])
    if place.is_absolute() or ".." in place.parts:
        raise InputError(
            f"the weights of {tensor.name!r} are in {told['location']!r}, outside of the model's folder",
            hint="export it again with its weights beside it",
        )
    path, offset = folder / place, int(told.get("offset", 0))
    if not path.is_file() or path.stat().st_size < offset + size:
        what = "is cut off" if path.is_file() else "is not there"
        raise InputError(
            f"{path}: its external data cannot be read: the file with {tensor.name!r} {what}",
            hint="the weights are in a second file that must lie beside the .onnx file under its original name",
        )
    return np.memmap(path, np.uint8, "r", offset, (size,)) if size else np.zeros(0, np.uint8)


def _move(tensors: list[TensorProto], folder: Path | None, to: Path) -> None:
    """Write the tensors into one new file in `to`, one after the other, and name it by its digest."""
    hashed, staged, at = hashlib.sha256(), to / ".weights.part", 0
    places = []
    with staged.open("wb") as file:

        def put(data: bytes | memoryview) -> None:
            hashed.update(data)
            file.write(data)

        for tensor in tensors:
            size = _size(tensor)
            if size < _LEAST_BYTES:
                if uses_external_data(tensor):
                    _take_in(tensor, folder or to)
                continue
            padding = -at % _PAGE_BYTES
            put(bytes(padding))
            for chunk in _bytes(tensor, folder or to):
                put(chunk)
            places.append((tensor, at + padding, size))
            at += padding + size
            _empty(tensor)
    digest = hashed.hexdigest()
    staged.replace(to / digest)
    for tensor, offset, size in places:
        tensor.raw_data = b""
        set_external_data(tensor, digest, offset, size)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL


def _bytes(tensor: TensorProto, folder: Path) -> Iterator[bytes | memoryview]:
    if uses_external_data(tensor):
        mapped = _mapped(tensor, folder)
        for start in range(0, mapped.size, _CHUNK_BYTES):
            yield mapped[start : start + _CHUNK_BYTES].data
    elif tensor.HasField("raw_data"):
        yield tensor.raw_data
    else:
        yield numpy_helper.to_array(tensor).tobytes()


def _take_in(tensor: TensorProto, folder: Path) -> None:
    tensor.raw_data = _mapped(tensor, folder).tobytes()
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


def _empty(tensor: TensorProto) -> None:
    """Let go of the values, so that what has been written is not held any longer."""
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)


def _external(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _size(tensor: TensorProto) -> int:
    """Of its values as they are written."""
    told = _external(tensor) if uses_external_data(tensor) else {}
    if "length" in told:
        return int(told["length"])
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0
    name = TensorProto.DataType.Name(tensor.data_type)
    count = int(math.prod(tensor.dims))
    if name.endswith("INT4") or name.startswith("FLOAT4"):
        return (count + 1) // 2
    if name.endswith("INT2"):
        return (count + 3) // 4
    return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from _of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _of_attributes(node.attribute)


def _of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Any) -> Iterator[TensorProto]:
    for attribute in attributes:
        if attribute.type == AttributeProto.TENSOR:
            yield attribute.t
        yield from attribute.tensors
        if attribute.type == AttributeProto.GRAPH:
            yield from _of_graph(attribute.g)
        for graph in attribute.graphs:
            yield from _of_graph(graph)


def total_bytes(model: ModelProto) -> int:
    """Of all its weights, wherever they are."""
    return sum(map(_size, _tensors(model)))
