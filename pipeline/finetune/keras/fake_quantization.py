"""Rounding to a quantizer's grid in float arithmetic, with gradients that pass through the rounding.

The grids are those of the LiteRT 8-bit quantization specification, as ai-edge-quantizer and onnxruntime choose them
(Jacob et al. 2018, arXiv:1712.05877). The gradient of rounding is taken as 1 (the straight-through estimator, Bengio
et al. 2013, arXiv:1308.3432). Derived through the rest of the formula, that makes the gradient of a range the one of
learned step size quantization (Esser et al. 2020, arXiv:1902.08153): rounding errors inside it, clipping outside.
"""

from typing import Any

import tensorflow as tf

_LEAST_BOUND = 1e-9  # ai-edge-quantizer's own: no scale is zero


def straight_through_round(x: Any) -> Any:
    """Round half to even, as both quantizers do; the gradient is that of x."""
    return x + tf.stop_gradient(tf.round(x) - x)


def weight_scale(weights: Any, clip: Any, *, bits: int, axes: tuple[int, ...]) -> Any:
    """Symmetric scale per channel: the largest weight, or `clip` where that is smaller, becomes the largest integer.

    `axes` are the channel axes of the weights; `clip` broadcasts against them. The result has 1 in all other axes.
    """
    others = [axis for axis in range(len(weights.shape)) if axis not in {a % len(weights.shape) for a in axes}]
    largest = tf.reduce_max(tf.abs(weights), axis=others, keepdims=True)
    return tf.maximum(tf.minimum(clip, largest), _LEAST_BOUND) / (2.0 ** (bits - 1) - 1)


def fake_quantize_weights(weights: Any, clip: Any, *, bits: int, axes: tuple[int, ...]) -> Any:
    """The weights as integer × scale. The largest integer of a channel is always used, so that quantizing the result
    by its own largest weight gives the same integers again."""
    limit = 2.0 ** (bits - 1) - 1
    scale = weight_scale(weights, clip, bits=bits, axes=axes)
    return tf.clip_by_value(straight_through_round(weights / scale), -limit, limit) * scale


def fake_quantize_activations(x: Any, low: Any, high: Any) -> Any:
    """x on the int8 grid of the range (low, high), which is widened to contain zero: zero is always on the grid.

    The gradient is written out, and keeps nothing but the tensor itself until it is needed.
    """
    return _on_grid(x, tf.minimum(low, 0.0), tf.maximum(high, 0.0))


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _on_grid(x: Any, low: Any, high: Any) -> Any:
    scale = tf.maximum(high - low, _LEAST_BOUND) / 255.0
    exact = -128.0 - low / scale
    zero_point = tf.round(exact)

    def gradients(upstream: Any) -> tuple[Any, Any, Any]:
        """Inside: x + rounding error × scale. Outside: the end of the grid, which is the range's end moved by the
        rounding error of the zero point × scale."""
        steps = x / scale
        integer = tf.round(steps)
        above = integer + zero_point > 127.0
        outside = (integer + zero_point < -128.0) | above
        moved = zero_point - exact
        by_scale = tf.where(outside, tf.where(above, 255.0 - moved, -moved), integer - steps)
        by_end = tf.reduce_sum(tf.where(outside, upstream, 0.0))
        of_scale = tf.reduce_sum(upstream * by_scale) / 255.0
        return tf.where(outside, 0.0, upstream), by_end - of_scale, of_scale

    integer = tf.clip_by_value(tf.round(x / scale) + zero_point, -128.0, 127.0)
    return (integer - zero_point) * scale, gradients
