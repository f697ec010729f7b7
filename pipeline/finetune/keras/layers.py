"""The two Keras layers that make a model behave as if it were quantized, and which kernels they know."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.finetune.clipping import best_clip_share, largest_weight
from pipeline.finetune.keras.fake_quantization import fake_quantize_activations, fake_quantize_weights


@dataclass(frozen=True, slots=True)
class Kernel:
    """A weight of a layer that the quantizers take: its attribute, channel axes, and whether LiteRT takes int4."""

    attribute: str
    axes: tuple[int, ...]
    int4: bool


# LiteRT has int4 rules for CONV_2D and FULLY_CONNECTED only (ai-edge-quantizer 0.10, `static_wi4_ai8`).
_CONVOLUTION = (Kernel("kernel", (-1,), True),)
_TRANSPOSED = (Kernel("kernel", (-2,), False),)
_DEPTHWISE = (Kernel("kernel", (-2, -1), False),)
_SEPARABLE = (Kernel("depthwise_kernel", (-2, -1), False), Kernel("pointwise_kernel", (-1,), True))
KERNELS: Mapping[str, tuple[Kernel, ...]] = {
    "Conv1D": _CONVOLUTION,
    "Conv1DTranspose": _TRANSPOSED,
    "Conv2D": _CONVOLUTION,
    "Conv2DTranspose": _TRANSPOSED,
    "Dense": _CONVOLUTION,
    "DepthwiseConv1D": _DEPTHWISE,
    "DepthwiseConv2D": _DEPTHWISE,
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
}


def kernels(layer: Any) -> tuple[Kernel, ...]:
    """The kernels of a layer; none for layers of other types, subclasses included: those may do anything."""
    return KERNELS.get(type(layer).__name__, ()) if type(layer).__module__.startswith("keras.") else ()


@dataclass(slots=True)
class Mode:
    """What the layers of one model do now: quantize, observe ranges, or (neither) compute in float."""

    quantizing: bool = False
    observing: bool = False


class QuantizedWeights(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """A layer that computes with its kernels on the grid of `weight_bits`, clipped per channel at a learned value."""

    def __init__(self, inner: Any, mode: Mode, weight_bits: int) -> None:
        super().__init__(name=inner.name)
        self.inner, self.mode = inner, mode
        inner.trainable = True
        self._kernels = kernels(inner)
        self._bits = [weight_bits if kernel.int4 else 8 for kernel in self._kernels]
        self._clips: list[tuple[Any, Any]] = []  # the largest weight, and the logarithm of the share that is kept
        self._best_shares: list[np.ndarray[Any, Any]] = []

    def build(self, shape: Any) -> None:
        for kernel, bits in zip(self._kernels, self._bits, strict=True):
            values = np.asarray(getattr(self.inner, kernel.attribute))
            start = largest_weight(values, axes=kernel.axes)
            exponent = self.add_weight(name=f"{kernel.attribute}_clip", shape=start.shape, initializer="zeros")
            self._clips.append((tf.constant(start), exponent))
            self._best_shares.append(best_clip_share(values, bits=bits, axes=kernel.axes))
        self.built = True

    def clip(self, *, best: bool) -> None:
        """Begin with the clip of least rounding error, or with none. What is better for the answers is to be tried:
        clipping takes from the large weights, and rounding errors of the small ones may cancel."""
        for (_, exponent), shares in zip(self._clips, self._best_shares, strict=True):
            exponent.assign(np.log(shares) if best else np.zeros_like(shares))

    def quantized(self) -> list[tuple[Any, Any]]:
        """Each kernel variable and its values on the grid."""
        found = []
        for kernel, bits, (start, exponent) in zip(self._kernels, self._bits, self._clips, strict=True):
            variable = getattr(self.inner, kernel.attribute)
            clip = start * tf.exp(tf.convert_to_tensor(exponent))
            values = fake_quantize_weights(tf.convert_to_tensor(variable), clip, bits=bits, axes=kernel.axes)
            found.append((variable, values))
        return found

    def call(self, x: Any) -> Any:
        if not self.mode.quantizing:
            return self.inner(x)
        on_grid = {id(variable): values for variable, values in self.quantized()}
        variables = [on_grid.get(id(variable), variable) for variable in self.inner.trainable_variables]
        answer, _ = self.inner.stateless_call(variables, self.inner.non_trainable_variables, x)
        return answer


class QuantizedActivation(keras.layers.Layer):  # type: ignore[misc]
    """A tensor on its int8 grid, whose range begins as observed and is learned; with `fixed`, as the runtime has it."""

    def __init__(self, name: str, mode: Mode, fixed: tuple[float, float] | None = None) -> None:
        super().__init__(name=name)
        self.mode, self.fixed = mode, fixed
        self.seen: Any = None

    def build(self, shape: Any) -> None:
        if self.fixed is None:
            self.low = self.add_weight(name="low", shape=(), initializer="zeros", trainable=False)
            self.high = self.add_weight(name="high", shape=(), initializer="zeros", trainable=False)
            self.low_exponent = self.add_weight(name="low_exponent", shape=(), initializer="zeros")
            self.high_exponent = self.add_weight(name="high_exponent", shape=(), initializer="zeros")
        self.built = True

    def range(self) -> tuple[Any, Any]:
        """The range now. An end at zero stays there: what a ReLU gives has no negative part to spend integers on."""
        if self.fixed is not None:
            return self.fixed
        low, high = tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        return (
            low * tf.exp(tf.convert_to_tensor(self.low_exponent)),
            high * tf.exp(tf.convert_to_tensor(self.high_exponent)),
        )

    def call(self, x: Any) -> Any:
        if self.mode.observing and self.fixed is None:
            self.seen = x
            self.low.assign(tf.minimum(self.low, tf.reduce_min(x)))
            self.high.assign(tf.maximum(self.high, tf.reduce_max(x)))
        return fake_quantize_activations(x, *self.range()) if self.mode.quantizing else x

    def compute_output_shape(self, shape: Any) -> Any:
        return shape
