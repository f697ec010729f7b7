"""TensorFlow SavedModel as a source, and the hub through which Keras models reach both formats."""

import shutil
import tarfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from pipeline.errors import InputError
from pipeline.exporters.source import Arrays, refuse_bad_weights
from pipeline.plugins import versions
from targets.records import TensorSpec

SIGNATURE = "serving_default"


class SavedModelSource:
    """A SavedModel folder, used through one of its signatures."""

    def __init__(self, path: Path, *, signature: str = SIGNATURE, scratch: Path) -> None:
        self._path, self._scratch = path, scratch
        try:
            self._loaded = tf.saved_model.load(str(_without_slots(path, scratch / "without_slots")))
        except Exception as error:  # TensorFlow raises anything from OSError to its own DataLossError here
            first = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise InputError(
                f"{path}: TensorFlow cannot load it: {first}", hint="save or copy the model again, the whole folder"
            ) from None
        self._signature = self._choose(signature)
        self.inputs = tuple(
            tensor_spec(name, spec) for name, spec in sorted(self._signature.structured_input_signature[1].items())
        )
        self.outputs = tuple(tensor_spec(name, spec) for name, spec in self._signature.structured_outputs.items())
        self.tools: Mapping[str, str] = versions("tensorflow")
        self._serve: Any = self._signature
        refuse_bad_weights(path, ((v.name, v.numpy()) for v in getattr(self._loaded, "variables", ())))

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        specs = {spec.name: shaped(spec, shapes[spec.name]) for spec in self.inputs}
        signature = self._signature
        function = tf.function(lambda **tensors: signature(**tensors))
        self._serve = function.get_concrete_function(**specs)
        self.inputs = tuple(tensor_spec(name, spec) for name, spec in specs.items())
        self.outputs = tuple(tensor_spec(name, spec) for name, spec in self._serve.structured_outputs.items())

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        answers = self._serve(**{name: tf.constant(array) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in answers.items()}

    def save(self, path: Path) -> None:
        write_archive(self._loaded, self._serve, self._scratch / "fixed", path)

    def _choose(self, name: str) -> Any:
        signatures = self._loaded.signatures
        if name in signatures:
            return signatures[name]
        if len(signatures) == 1 and name == SIGNATURE:
            return next(iter(signatures.values()))
        known = ", ".join(signatures) or "none"
        raise InputError(
            f"{self._path}: has no signature {name!r}; it has: {known}",
            hint="choose one with source: {signature: NAME}"
            if signatures
            else "export the model with a signature: tf.saved_model.save(m, folder, signatures=...)",
        )


def _without_slots(path: Path, folder: Path) -> Path:
    """The model without its optimizer's slot variables, or `path` when it has none.

    A model that Keras 2 saved while training keeps them, and TensorFlow cannot restore them where Keras 2 is not
    installed: "'_UserObject' object has no attribute 'add_slot'". Inference has no use for them.
    """
    file = path / "saved_model.pb"
    if not file.is_file():
        return path  # TensorFlow says what is wrong with it
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString(file.read_bytes())
    except DecodeError:
        return path
    slotted = [node for graph in model.meta_graphs for node in graph.object_graph_def.nodes if node.slot_variables]
    if not slotted:
        return path
    for node in slotted:
        node.ClearField("slot_variables")
    shutil.copytree(path, folder, dirs_exist_ok=True)
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    return folder


class Served:
    """What sources of both Kerases share once their model is a concrete function of named tensors."""

    _model: Any
    _serve: Any  # the function; its outputs are a dict by `_output_names`
    _scratch: Path
    _output_names: Sequence[str]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        answers = self._serve(**{name: tf.constant(array) for name, array in inputs.items()})
        return {name: answers[name].numpy() for name in self._output_names}

    def save(self, path: Path) -> None:
        write_archive(self._model, self._serve, self._scratch / "fixed", path)


def write_archive(tracked: Any, serve: Any, folder: Path, path: Path) -> None:
    """Save `serve` (a concrete function over variables that `tracked` holds) as a SavedModel, in one tar file."""
    module = tf.Module()
    module.tracked = tracked
    module.held = list(serve.variables)  # Keras 3 wraps its variables: the converter freezes only plain ones
    module.serve = serve
    shutil.rmtree(folder, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: serve})
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname="saved_model")


def unpack_archive(path: Path, scratch: Path) -> Path:
    """Unpack what `write_archive` made and return the SavedModel folder."""
    with tarfile.open(path) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / "saved_model"


def shaped(spec: TensorSpec, shape: Sequence[int]) -> Any:
    """The input as a concrete function takes it; -1 stays free."""
    sizes = [None if size < 0 else size for size in shape]
    return tf.TensorSpec(sizes, tf.as_dtype(spec.dtype), name=spec.name)


def tensor_spec(name: str, spec: Any) -> TensorSpec:
    if spec.shape.rank is None:
        raise InputError(f"tensor {name!r} of the SavedModel has no known rank", hint="save it with an input signature")
    shape = tuple(-1 if size is None else int(size) for size in spec.shape.as_list())
    return TensorSpec(name=name, shape=shape, dtype=spec.dtype.name)
