"""A Keras model to be fine-tuned: one of Keras 3, or of Keras 2 as Keras 3 reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from pipeline.errors import ConversionFailed
from pipeline.exporters.keras import KerasSource, load
from pipeline.finetune.keras.folding import folded
from pipeline.finetune.keras.losses import truth_loss
from pipeline.finetune.keras.network import KerasNetwork
from pipeline.finetune.keras.quantized_model import quantized_model
from pipeline.finetune.settings import Origin
from pipeline.finetune.trainee import Ranges
from pipeline.finetune.training import Array

_WITHOUT = "the recipes without `qat` take this model"


class KerasTrainee:
    """The folded model and the quantized one, which share their variables."""

    def __init__(self, origin: Origin, weight_bits: int) -> None:
        self._origin = origin
        model = load(origin.model) if origin.kind == "keras" else _of_h5(origin)
        try:
            self._plain = folded(model)
            self._quantized = quantized_model(self._plain, weight_bits=weight_bits)
        except ValueError as error:  # of ours, or Keras's own on a graph that it cannot clone
            said = str(error).strip().splitlines()[0]
            raise ConversionFailed(f"this model cannot be fine-tuned: {said}", hint=_WITHOUT) from error
        _refuse_half_precision(self._plain)
        fixed = self._quantized.model.inputs[0].shape[0]
        self.batch = int(fixed) if fixed else None
        self.untrained = self._quantized.untrained
        self.weight_bytes = 4 * sum(int(np.prod(weight.shape)) for weight in self._plain.trainable_variables)
        shapes = {spec.name: spec.shape for spec in origin.inputs}
        self.sample_bytes = _sample_bytes(self._quantized.model, [shapes[t.name] for t in self._plain.inputs])

    def joined(self, rows: Sequence[Array]) -> Array:
        if rows[0].shape[0] != 1:
            raise ConversionFailed("fine-tuning takes models whose samples have a batch axis of 1", hint=_WITHOUT)
        return np.concatenate(rows)

    def network(self, *, loss: str, base: Path, truths: Array | None, calibrated: Ranges) -> KerasNetwork:
        names = [spec.name for spec in self._origin.outputs]
        return KerasNetwork(self._quantized, truth_loss(loss, base, names, truths), calibrated)

    def seen(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._quantized.seen([inputs[spec.name] for spec in self._origin.inputs])

    def settle(self) -> Ranges:
        for layer in self._quantized.weights:
            for variable, values in layer.quantized():
                variable.assign(values)
        learned = [layer for layer in self._quantized.activations if layer.fixed is None]
        return {layer.name: (float(layer.range()[0]), float(layer.range()[1])) for layer in learned}

    def save(self, first: Mapping[str, Array]) -> dict[str, Array]:
        origin = self._origin
        source = KerasSource(origin.model, scratch=origin.scratch, model=self._plain)
        for made, given in ((source.inputs, origin.inputs), (source.outputs, origin.outputs)):
            if [spec.name for spec in made] != [spec.name for spec in given]:
                raise ConversionFailed("fine-tuning lost the names of inputs or outputs", hint=_WITHOUT)
        source.fix_shapes({spec.name: spec.shape for spec in origin.inputs})
        source.save(origin.scratch / "model")
        return source.run(first)


def _of_h5(origin: Origin) -> Any:
    """The model of an HDF5 file; one of Keras 2 is written by tf_keras and read by Keras 3, which must answer alike."""
    from pipeline.exporters.keras_h5 import H5Source
    from pipeline.exporters.source import Unstated

    def no_sample(names: Sequence[str]) -> Mapping[str, Array]:
        raise AssertionError(f"Keras declares its inputs: {names}")

    unstated = Unstated(base=origin.base, factory=origin.factory, shapes={}, first_sample=no_sample)
    source = H5Source(origin.model, scratch=origin.scratch, unstated=unstated)
    if source.framework == "keras":
        return source.model
    legacy = origin.scratch / "legacy.h5"
    try:
        source.model.save(str(legacy), save_format="h5")
        model = keras.saving.load_model(legacy, compile=False)
    except Exception as error:  # Keras raises ValueError, TypeError, AttributeError … for one and the same thing
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConversionFailed(
            f"Keras {keras.__version__} cannot take over this Keras 2 model to fine-tune it: {first[:200]}",
            hint=_WITHOUT,
        ) from error
    random = np.random.default_rng(0)
    probe = [random.normal(size=spec.shape).astype(spec.dtype) for spec in origin.inputs]
    one, other = (
        keras.tree.flatten(made(probe if len(probe) > 1 else probe[0], training=False))
        for made in (source.model, model)
    )
    if not all(np.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(one, other, strict=True)):
        raise ConversionFailed("Keras 3 answers differently from Keras 2 for this model", hint=_WITHOUT)
    return model


def _refuse_half_precision(model: Any) -> None:
    for layer in model.layers:
        if layer.compute_dtype != "float32" and layer.weights:
            raise ConversionFailed(
                f"layer {layer.name} computes in {layer.compute_dtype}: fine-tuning takes float32 models",
                hint="set its dtype policy to float32 and save it again",
            )


def _sample_bytes(model: Any, shapes: Sequence[tuple[int, ...]]) -> int:
    """All tensors between the operations, for inputs of these shapes."""
    found = 0

    def call(operation: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal found
        answer = operation(*arguments, **named)
        for tensor in keras.tree.flatten(answer):
            found += 4 * int(np.prod([size or 1 for size in tensor.shape]))
        return answer

    inputs = [keras.Input(batch_shape=shape, dtype=t.dtype) for shape, t in zip(shapes, model.inputs, strict=True)]
    packed = keras.tree.pack_sequence_as(model.input, inputs)
    keras.models.clone_model(model, input_tensors=packed, clone_function=lambda layer: layer, call_function=call)
    return found
