"""Fake quantization gives the integers that the real quantizers give, and gradients that pass through the rounding."""

from typing import Any

import numpy as np
import pytest
from ai_edge_quantizer import qtyping
from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor as real
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

tf = pytest.importorskip("tensorflow")

from pipeline.finetune.keras import fake_quantization as fake  # noqa: E402

PER_CHANNEL, PER_TENSOR = qtyping.QuantGranularity.CHANNELWISE, qtyping.QuantGranularity.TENSORWISE
FLOATS = st.floats(-20, 20, width=32, allow_subnormal=False)
SHAPES = st.sampled_from([(3, 3, 2, 4), (5, 3), (1, 1, 4, 2)])


def real_integers(weights: np.ndarray[Any, Any], bits: int) -> tuple[Any, Any]:
    """Integers and scales of ai-edge-quantizer's min-max algorithm, one scale per last axis."""
    others = tuple(range(weights.ndim - 1))
    low, high = weights.min(others, keepdims=True), weights.max(others, keepdims=True)
    zero_point, scale = real.tensor_zp_scale_from_min_max(low, high, bits, True, PER_CHANNEL)
    parameters = qtyping.UniformQuantParams(bits, weights.ndim - 1, scale, zero_point, True)
    return real.uniform_quantize(weights, parameters), scale


@settings(max_examples=60, deadline=None)
@given(SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=FLOATS)), st.sampled_from([4, 8]))
def test_weights_without_a_clip_are_those_of_the_quantizer(weights: np.ndarray[Any, Any], bits: int) -> None:
    integers, scale = real_integers(weights, bits)
    ours = fake.fake_quantize_weights(tf.constant(weights), np.float32(np.inf), bits=bits, axes=(-1,)).numpy()
    np.testing.assert_array_equal(ours, integers * scale)


@settings(max_examples=60, deadline=None)
@given(
    SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=FLOATS)),
    st.floats(0.125, 20, width=32),
    st.sampled_from([4, 8]),
)
def test_quantizing_clipped_weights_again_changes_nothing(
    weights: np.ndarray[Any, Any], clip: float, bits: int
) -> None:
    """What is exported are float weights on a grid; the quantizer must find that very grid."""
    scale = fake.weight_scale(tf.constant(weights), np.float32(clip), bits=bits, axes=(-1,)).numpy()
    ours = fake.fake_quantize_weights(tf.constant(weights), np.float32(clip), bits=bits, axes=(-1,)).numpy()
    integers, again = real_integers(ours, bits)
    limit = 2 ** (bits - 1) - 1
    wanted = np.clip(np.rint(weights / scale), -limit, limit)
    np.testing.assert_array_equal(integers, wanted)
    used = np.abs(wanted).max(tuple(range(weights.ndim - 1)), keepdims=True) > 0
    np.testing.assert_allclose(np.where(used, again, scale), scale, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (7,), elements=FLOATS), FLOATS, FLOATS)
def test_activations_are_on_the_grid_of_the_quantizer(x: np.ndarray[Any, Any], one: float, other: float) -> None:
    low, high = np.float32(min(one, other)), np.float32(max(one, other))
    zero_point, scale = real.tensor_zp_scale_from_min_max(low, high, 8, False, PER_TENSOR)
    # As the specification says it; the quantizer's own function adds the zero point first, which moves exact ties.
    wanted = (np.clip(np.rint(x / scale) + zero_point.astype(np.float32), -128, 127) - zero_point) * scale
    ours = fake.fake_quantize_activations(tf.constant(x), tf.constant(low), tf.constant(high)).numpy()
    np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=0)
    assert fake.fake_quantize_activations(tf.constant(0.0), tf.constant(low), tf.constant(high)) == 0


def test_gradients() -> None:
    """1 inside the range and 0 outside (straight-through); that of the scale is of learned step size quantization."""
    weights, clip = tf.Variable([[0.30], [-0.72], [2.5], [4.0]]), tf.Variable([[1.4]])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(fake.fake_quantize_weights(weights, clip, bits=4, axes=(-1,)))
    by_weight, by_clip = tape.gradient(total, [weights, clip])
    np.testing.assert_array_equal(by_weight, [[1], [1], [0], [0]])
    steps = weights.numpy()[:2] / 0.2
    expected = (np.rint(steps) - steps).sum() + 7 + 7  # rounding errors inside, the limit for each that is clipped
    np.testing.assert_allclose(by_clip.numpy(), [[expected / 7]], rtol=1e-4)

    x, low, high = tf.Variable([-3.0, 0.5, 3.0]), tf.Variable(-1.0), tf.Variable(1.0)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(fake.fake_quantize_activations(x, low, high))
    by_x, by_low, by_high = tape.gradient(total, [x, low, high])
    np.testing.assert_array_equal(by_x, [0, 1, 0])
    np.testing.assert_allclose([by_low, by_high], [1, 1], atol=0.02)  # an end that clips moves with the range
