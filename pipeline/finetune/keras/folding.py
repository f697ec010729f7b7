"""Batch normalization folded into the layer before it, and activations apart where the runtime has them apart.

This is how the converters see a model: they quantize the folded kernel, so that is the one to train (Jacob et al.
2018, section 3.2). Statistics stay as they were trained; a few dozen samples could only make them worse.
"""

from typing import Any

import keras
import numpy as np

from pipeline.finetune.keras.graph import Links, flat, links
from pipeline.finetune.keras.layers import kernels

# LiteRT computes these inside the op before, so that no tensor is between them; not after a transposed convolution.
_FUSED = frozenset({"linear", "relu", "relu6"})


def folded(model: Any) -> Any:
    """A flat model with the same answers; layers that need no change are the very same objects."""
    model = flat(model)
    linked = links(model)
    normalized = _normalized(model, linked)
    normalizers = {id(layer) for layer in normalized.values()}
    made: list[tuple[Any, Any, Any]] = []

    def clone(layer: Any) -> Any:
        normalizer = normalized.get(id(layer))
        apart = _activation_apart(layer)
        if not (normalizer or apart):
            return layer
        config = layer.get_config()
        if apart:
            config |= {"activation": "linear", "name": f"{layer.name}_linear"}
        new = type(layer).from_config({**config, "use_bias": True})
        made.append((layer, normalizer, new))
        return new

    def call(layer: Any, *arguments: Any, **named: Any) -> Any:
        if id(layer) in normalizers:
            return arguments[0]
        answer = layer(*arguments, **named)
        old = next((old for old, _, new in made if new is layer), None)
        if old is not None and _activation_apart(old):
            answer = keras.layers.Activation(old.activation, name=old.name)(answer)
        return answer

    result = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for old, normalizer, new in made:
        _set_folded_weights(old, normalizer, new)
    return result


def fused_activation(operation: Any) -> bool:
    """Whether this is an activation that the runtime fuses into the op before it."""
    kind = type(operation).__name__
    if kind == "ReLU":
        plain = not operation.negative_slope and not operation.threshold
        return plain and (operation.max_value is None or operation.max_value == 6)
    if kind == "Activation":
        return _named(operation.activation) in _FUSED - {"linear"}
    return kind in ("Relu", "Relu6")


def is_transposed(layer: Any) -> bool:
    return type(layer).__name__ in ("Conv1DTranspose", "Conv2DTranspose")


def _named(activation: Any) -> str:
    return str(getattr(activation, "__name__", ""))


def _activation_apart(layer: Any) -> bool:
    if not kernels(layer):
        return False
    return _named(layer.activation) not in ({"linear"} if is_transposed(layer) else _FUSED)


def _normalized(model: Any, linked: Links) -> dict[int, Any]:
    """id of a layer -> the batch normalization that alone uses what the layer gives, and nothing else."""
    found: dict[int, Any] = {}
    for normalizer in model.operations:
        if type(normalizer).__name__ != "BatchNormalization" or linked.calls[id(normalizer)] != 1:
            continue
        (layer,) = linked.before[id(normalizer)] or (None,)
        if layer is None or not kernels(layer) or _named(layer.activation) != "linear":
            continue
        alone = linked.calls[id(layer)] == 1 and linked.after[id(layer)] == [normalizer]
        # An output keeps the name of its layer: one that is normalized last stays as it is.
        if alone and None not in linked.after[id(normalizer)] and _over_channels(normalizer, layer):
            found[id(layer)] = normalizer
    return found


def _over_channels(normalizer: Any, layer: Any) -> bool:
    rank = len(normalizer.input.shape)
    return normalizer.axis in (-1, rank - 1) and getattr(layer, "data_format", "channels_last") == "channels_last"


def _set_folded_weights(old: Any, normalizer: Any, new: Any) -> None:
    values = {variable.name: np.asarray(variable) for variable in old.weights}
    channels = np.asarray(new.bias).shape
    bias = values.get("bias", np.zeros(channels, np.float32))
    if normalizer is not None:
        kernel = kernels(old)[-1]  # of a separable convolution the pointwise one, which comes last
        factor, offset = _factor_and_offset(normalizer)
        weights = values[kernel.attribute]
        channel_axes = {axis % weights.ndim for axis in kernel.axes}
        shape = [size if axis in channel_axes else 1 for axis, size in enumerate(weights.shape)]
        values[kernel.attribute] = weights * factor.reshape(shape)
        bias = bias * factor + offset
    for variable in new.weights:
        variable.assign(bias if variable.name == "bias" else values[variable.name])


def _factor_and_offset(normalizer: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    mean, variance = np.asarray(normalizer.moving_mean), np.asarray(normalizer.moving_variance)
    factor = 1.0 / np.sqrt(variance + normalizer.epsilon)
    if normalizer.gamma is not None:
        factor = factor * np.asarray(normalizer.gamma)
    offset = -mean * factor
    return factor, offset if normalizer.beta is None else offset + np.asarray(normalizer.beta)
