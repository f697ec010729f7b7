"""HDF5 files of Keras as a source: a whole model, or weights for a model that `source.factory` builds.

Keras 2 wrote them, and its successor in maintenance, tf_keras, reads them; Keras 3 reads those that it wrote itself.
From here on they are SavedModels.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import tensorflow as tf

from pipeline.errors import InputError, MissingExtra
from pipeline.exporters.saved_model import Served, shaped, tensor_spec
from pipeline.exporters.source import Unstated, refuse_bad_weights
from pipeline.plugins import versions
from pipeline.samples.user_function import call, load_function
from targets.records import TensorSpec

FACTORY_HINT = "give the code that builds the model: source: {factory: file.py:function}"


class H5Source(Served):
    """A functional or sequential model of tf_keras or Keras 3; tensors keep the names of their layers."""

    def __init__(self, path: Path, *, signature: str = "", scratch: Path, unstated: Unstated | None = None) -> None:
        self._path, self._scratch = path, scratch
        written, whole = _described(path)
        if unstated and unstated.factory:
            build = load_function(unstated.factory, unstated.base)
            self._model = _filled(call(unstated.factory, build), path, unstated.factory)
        elif whole:
            self._model = _loaded(path, written)
        else:
            raise InputError(f"{path}: holds weights without a model", hint=FACTORY_HINT)
        if not getattr(self._model, "inputs", None):
            raise InputError(
                f"{path}: the model has no declared inputs (a subclassed model?)",
                hint="export it as a SavedModel: model.export('folder')",
            )
        self._input_names = _unique([tensor.name.partition(":")[0] for tensor in self._model.inputs])
        names = getattr(self._model, "output_names", None) or [self._model.layers[-1].name]
        self._output_names = _unique(list(names))
        self.inputs = tuple(map(_spec, self._input_names, self._model.inputs))
        self.outputs = tuple(map(_spec, self._output_names, self._model.outputs))
        self.tools: Mapping[str, str] = versions(self.framework, "tensorflow")
        refuse_bad_weights(path, ((weight.name, np.asarray(weight)) for weight in self._model.weights))

    @property
    def model(self) -> Any:
        """The model in its own Keras."""
        return self._model

    @property
    def framework(self) -> Literal["keras", "tf_keras"]:
        """Which Keras that is."""
        return "tf_keras" if any("tf_keras" in kind.__module__ for kind in type(self._model).__mro__) else "keras"

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        specs = {spec.name: shaped(spec, shapes[spec.name]) for spec in self.inputs}
        names, output_names, model = self._input_names, self._output_names, self._model

        def serve(**tensors: Any) -> dict[str, Any]:
            flat = [tensors[name] for name in names]
            answers = model(flat[0] if len(flat) == 1 else flat, training=False)
            return dict(zip(output_names, tf.nest.flatten(answers), strict=True))

        self._serve = tf.function(serve).get_concrete_function(**specs)
        self.inputs = tuple(tensor_spec(name, spec) for name, spec in specs.items())
        self.outputs = tuple(tensor_spec(name, self._serve.structured_outputs[name]) for name in output_names)


def _described(path: Path) -> tuple[str, bool]:
    """The version of Keras that wrote the file, and whether it holds a whole model."""
    try:
        with h5py.File(path) as file:
            attributes = dict(file.attrs)
            inner = dict(file["model_weights"].attrs) if "model_weights" in file else {}
    except OSError as error:
        raise InputError(f"{path}: the HDF5 file is cut off or damaged ({error})", hint="fetch it again") from None
    written = attributes.get("keras_version", inner.get("keras_version", b""))
    version = written.decode() if isinstance(written, bytes) else str(written)
    return version, "model_config" in attributes


def _loaded(path: Path, written: str) -> Any:
    try:
        if written.startswith("3."):
            import keras

            return keras.saving.load_model(path, compile=False)
        return _tf_keras(path).models.load_model(path, compile=False)
    except MissingExtra:
        raise
    except Exception as error:  # Keras raises ValueError, TypeError, OSError, KeyError … for one and the same thing
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path}: the Keras {written or '2'} model in it cannot be loaded: {first}",
            hint=f"layers of your own do not travel in the file: {FACTORY_HINT}",
        ) from None


def _tf_keras(path: Path) -> Any:
    try:
        import tf_keras
    except ModuleNotFoundError:
        raise MissingExtra(
            f"reading {path.name} needs tf_keras, which is not installed",
            hint="pip install 'edge-deploy-pipeline[tensorflow]'",
        ) from None
    return tf_keras


def _filled(model: Any, path: Path, factory: str) -> Any:
    """The model with the weights of the file in the layers of the same name, all of them."""
    if not hasattr(model, "load_weights") or not hasattr(model, "layers"):
        raise InputError(
            f"{factory} returned {type(model).__name__}", hint="return a model of tf_keras or keras, not yet filled"
        )
    stored, has = _stored_layers(path), {layer.name: layer for layer in model.layers if layer.weights}
    lost = [name for name in has if stored is not None and name not in stored]
    if lost:
        raise InputError(
            f"{path}: has no weights for {', '.join(lost)} of {factory}; it has {', '.join(sorted(stored or ()))}",
            hint="give the layers the names they have in the file",
        )
    try:
        # By name alone, layers without a namesake would keep their random weights in silence: hence the check above.
        model.load_weights(path, **({} if stored is None else {"by_name": True}))
    except Exception as error:  # as above
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: its weights do not fit {factory}: {first}", hint="mend the function") from None
    return model


def _stored_layers(path: Path) -> set[str] | None:
    """Layers with weights in the format of Keras 2; None for Keras 3's, whose loader checks by itself."""
    with h5py.File(path) as file:
        group = file.get("model_weights", file)
        return set(_layers(group)) if "layer_names" in group.attrs else None


def _layers(group: Any) -> Iterator[str]:
    for name in group.attrs["layer_names"]:
        text = name.decode() if isinstance(name, bytes) else str(name)
        if text in group and len(group[text].attrs.get("weight_names", ())):
            yield text


def _spec(name: str, tensor: Any) -> TensorSpec:
    shape = tuple(-1 if size is None else int(size) for size in tensor.shape)
    return TensorSpec(name=name, shape=shape, dtype=tf.as_dtype(tensor.dtype).name)


def _unique(names: list[str]) -> list[str]:
    return [name if names.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(names)]
