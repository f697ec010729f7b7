"""TFLite files as a source: float ones to be quantized, quantized ones to be deployed as they are."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_litert.tools import flatbuffer_utils

from pipeline.errors import ConversionFailed, InputError
from pipeline.exporters.source import Arrays, refuse_bad_weights
from pipeline.plugins import versions
from pipeline.runtimes.litert import LiteRTModel
from targets.records import TensorSpec


class TfliteSource:
    """A `.tflite` file; LiteRT is the framework that its answers are taken from.

    Where no dimension has to be bound, the file goes on byte by byte as it is.
    """

    def __init__(self, path: Path, *, signature: str = "", scratch: Path) -> None:
        self._path, self._file, self._scratch = path, path, scratch
        self._inputs, outputs = _details(path)
        self.inputs = tuple(_spec(path, name, detail) for name, detail in self._inputs.items())
        self.outputs = tuple(_spec(path, name, detail) for name, detail in outputs.items())
        self.tools: Mapping[str, str] = versions("ai-edge-litert")
        refuse_bad_weights(path, _weights(path))

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        asked = {int(detail["index"]): shapes[name] for name, detail in self._inputs.items()}
        declared = {spec.name: spec.shape for spec in self.inputs}
        free = any(-1 in shape for shape in shapes.values())
        if free and any(shapes[name] != shape for name, shape in declared.items()):
            said = ", ".join(f"{name} {list(shape)}" for name, shape in declared.items())
            raise InputError(
                f"{self._path}: a .tflite keeps all its free dimensions or none; it takes {said}",
                hint="give in source.inputs -1 for all of these dimensions, or a size for each",
            )
        if not free and any(tuple(detail["shape"]) != asked[int(detail["index"])] for detail in self._inputs.values()):
            self._file = self._scratch / "bound.tflite"
            _bind(self._path, asked, self._file)
        try:
            self._model = LiteRTModel(self._file)
        except ConversionFailed as error:
            raise InputError(f"{self._path}: {error.message.partition(': ')[2]}", hint=_hint(error.message)) from None
        self.inputs = tuple(_real(spec) for spec in self._model.inputs)
        self.outputs = tuple(_real(spec) for spec in self._model.outputs)

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        return {name: np.array(array) for name, array in self._model.answer(inputs).items()}

    def save(self, path: Path) -> None:
        shutil.copyfile(self._file, path)


def name_tensors(path: Path) -> int:
    """Give tensors whose name another one has a name of their own; how many there were, in a file that is else left.

    Ranges and the quantizer know tensors by name ("Tensor name arg0 is not unique in the model").
    """
    model = flatbuffer_utils.read_model(str(path))
    main = model.subgraphs[0]
    ends = {id(main.tensors[place]) for place in (*main.inputs, *main.outputs)}
    every = [tensor for graph in model.subgraphs for tensor in graph.tensors if tensor.name]
    taken: set[bytes] = set()
    renamed = 0
    for number, tensor in enumerate(sorted(every, key=lambda one: id(one) not in ends)):
        if tensor.name in taken and id(tensor) not in ends:
            tensor.name = tensor.name + b"#%d" % number
            renamed += 1
        taken.add(tensor.name)
    if renamed:
        flatbuffer_utils.write_model(model, str(path))
    return renamed


def _details(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs by name, before any tensor is allocated: a model may need its shapes bound first."""
    try:
        interpreter = Interpreter(str(path))
        signatures = interpreter.get_signature_list()
        if signatures:
            runner = interpreter.get_signature_runner(next(iter(signatures)))
            return dict(runner.get_input_details()), dict(runner.get_output_details())
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        return {one["name"]: one for one in inputs}, {one["name"]: one for one in outputs}
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: LiteRT does not load it: {str(error).strip().splitlines()[0]}", hint=_hint(str(error))
        ) from None


def _hint(said: str) -> str:
    if "Select TensorFlow op" in said or "Flex" in said:
        return "it needs TensorFlow itself: convert it again with TFLITE_BUILTINS alone"
    if "custom op" in said:
        return "a runtime built for this model has that op, the one on PyPI has not: convert the model without it"
    return "fetch or convert it again, and check that it runs in ai-edge-litert"


def _weights(path: Path) -> Any:
    model = flatbuffer_utils.read_model(str(path))
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data if tensor.type == schema.TensorType.FLOAT32 else None
            if data is not None and len(data):
                name = tensor.name.decode("utf-8", "replace") if tensor.name else f"tensor {tensor.buffer}"
                yield name, np.frombuffer(bytes(data), np.float32)


def _bind(path: Path, shapes: Mapping[int, tuple[int, ...]], output: Path) -> None:
    """The model with these input shapes and, from the runtime's own inference, those of every other tensor."""
    # Without a delegate, which would keep the shapes of the tensors inside it to itself.
    plain = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    try:
        for index, shape in shapes.items():
            plain.resize_tensor_input(index, shape)
        plain.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: does not take inputs of {', '.join(str(list(shape)) for shape in shapes.values())}: "
            f"{str(error).strip().splitlines()[0]}",
            hint="choose other shapes in deploy.yaml, such as source: {inputs: {NAME: [1, 224, 224, 3]}}",
        ) from None
    found = {int(detail["index"]): detail["shape"] for detail in plain.get_tensor_details()}
    model = flatbuffer_utils.read_model(str(path))
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        data = model.buffers[tensor.buffer].data
        if index in found and (data is None or not len(data)):
            tensor.shape, tensor.shapeSignature = np.asarray(found[index], np.int32), None
    flatbuffer_utils.write_model(model, str(output))


def _spec(path: Path, name: str, detail: Mapping[str, Any]) -> TensorSpec:
    dtype = np.dtype(detail["dtype"])
    if dtype.kind not in "biuf":
        raise InputError(f"{path}: {name!r} is text; only numeric tensors are supported", hint="cut that part off")
    signature = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    scale, zero_point = detail["quantization"]
    shape = tuple(int(size) for size in signature)
    return _real(TensorSpec(name=name, shape=shape, dtype=dtype.name, scale=float(scale), zero_point=int(zero_point)))


def _real(spec: TensorSpec) -> TensorSpec:
    """What samples and answers are: a quantized tensor's real values."""
    return TensorSpec(name=spec.name, shape=spec.shape, dtype="float32" if spec.scale else spec.dtype)
