"""Keras 3 `.keras` files as a source; from here on they are SavedModels."""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"  # the converters read TensorFlow graphs

import keras
import numpy as np
import tensorflow as tf

from pipeline.errors import InputError
from pipeline.exporters.saved_model import Served, shaped, tensor_spec
from pipeline.exporters.source import refuse_bad_weights
from pipeline.plugins import versions
from targets.records import TensorSpec


class KerasSource(Served):
    """A functional or sequential Keras 3 model; its inputs and outputs keep the names of their layers."""

    def __init__(self, path: Path, *, signature: str = "", scratch: Path, model: Any = None) -> None:
        """Load the file, or take `model`, which was made from it."""
        self._path, self._scratch = path, scratch
        self._model = load(path) if model is None else model
        if not getattr(self._model, "inputs", None):
            raise InputError(
                f"{path}: the model has no declared inputs (a subclassed model?)",
                hint="export it as a SavedModel: model.export('folder')",
            )
        self.inputs = tuple(_keras_spec(tensor.name, tensor) for tensor in self._model.inputs)
        self._output_names = _output_names(self._model)
        self.outputs = tuple(
            _keras_spec(name, tensor) for name, tensor in zip(self._output_names, self._model.outputs, strict=True)
        )
        self.tools: Mapping[str, str] = versions("keras", "tensorflow")
        refuse_bad_weights(path, ((weight.path, np.asarray(weight)) for weight in self._model.weights))

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        specs = {spec.name: shaped(spec, shapes[spec.name]) for spec in self.inputs}
        names, model, output_names = list(specs), self._model, self._output_names

        def serve(**tensors: Any) -> dict[str, Any]:
            flat = [tensors[name] for name in names]
            # A Sequential model knows no structure of inputs: it has one.
            known = None if isinstance(model, keras.Sequential) else model.input
            structured = flat[0] if known is None else keras.tree.pack_sequence_as(known, flat)
            answers = keras.tree.flatten(model(structured, training=False))
            return dict(zip(output_names, answers, strict=True))

        self._serve = tf.function(serve).get_concrete_function(**specs)
        self.inputs = tuple(tensor_spec(name, spec) for name, spec in specs.items())
        self.outputs = tuple(tensor_spec(name, self._serve.structured_outputs[name]) for name in output_names)


def load(path: Path) -> Any:
    """The model in a `.keras` file.

    Raises:
        InputError: Keras cannot load it.
    """
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises ValueError, TypeError, OSError, KeyError … for one and the same thing
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path}: Keras {keras.__version__} cannot load it: {first}",
            hint=f"{_written_by(path)}custom layers and Lambda layers do not travel in a .keras file: "
            "export the model as a SavedModel (model.export('folder')) and give that",
        ) from None


def _written_by(path: Path) -> str:
    """Advice when another Keras wrote the file: older ones do not read what newer ones write."""
    try:
        with zipfile.ZipFile(path) as archive:
            version = str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (KeyError, ValueError, OSError, zipfile.BadZipFile):
        return ""
    return "" if version == keras.__version__ else f"Keras {version} wrote it: pip install keras=={version}; or else, "


def _keras_spec(name: str, tensor: Any) -> TensorSpec:
    shape = tuple(-1 if size is None else int(size) for size in tensor.shape)
    return TensorSpec(name=name, shape=shape, dtype=str(tensor.dtype))


def _output_names(model: Any) -> list[str]:
    # A Sequential model has no `output_names`; its only output is that of its last layer.
    names = getattr(model, "output_names", None) or [model.layers[-1].name]
    return [name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)]
