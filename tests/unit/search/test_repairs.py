"""Equalisation keeps what a network computes; bias correction takes the mean error away."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipes.bias_correction import convolution_shift, dense_shift, dequantized_error
from pipeline.recipes.equalization import Layer, equalize, fits


def rectified(array: np.ndarray) -> np.ndarray:
    return np.maximum(array, 0)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 30))
def test_equalising_three_dense_layers_changes_no_answer(seed: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    sizes = [5, 7, 6, 3]
    layers = {
        str(i): Layer(
            random.normal(size=(out, given, 1)) * np.exp(random.normal(0, np.log1p(spread), (out, 1, 1))),
            random.normal(size=out),
            False,
        )
        for i, (given, out) in enumerate(pairwise(sizes))
    }
    layers["1"].weights[2] = 0  # a dead channel has no range

    def answers(x: np.ndarray) -> np.ndarray:
        for name, layer in layers.items():
            assert layer.bias is not None
            x = layer.weights[:, :, 0] @ x + layer.bias[:, None]
            x = rectified(x) if name != "2" else x
        return x

    x = random.normal(size=(5, 20))
    before = answers(x)
    equalize(layers, [("0", "1"), ("1", "2")])
    np.testing.assert_allclose(answers(x), before, rtol=1e-9, atol=1e-9 * np.abs(before).max())


def test_afterwards_both_layers_have_the_same_ranges() -> None:
    random = np.random.default_rng(1)
    layers = {
        "conv": Layer(random.normal(size=(8, 3, 9)) * np.geomspace(0.05, 20, 8)[:, None, None], None, False),
        "depthwise": Layer(random.normal(size=(8, 1, 9)), None, True),
    }
    assert fits(layers["conv"], layers["depthwise"])
    equalize(layers, [("conv", "depthwise")])
    made, taken = (np.abs(layer.weights).max(axis=(1, 2)) for layer in layers.values())
    np.testing.assert_allclose(made, taken, rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_a_corrected_convolution_has_no_mean_error(groups: int) -> None:
    random = np.random.default_rng(groups)
    weights = random.normal(size=(6, 6 // groups, 3))
    scale = (np.abs(weights).max(axis=(1, 2)) / 7).astype(np.float32)  # 4 bits: a coarse grid
    quantized = np.rint(weights / scale[:, None, None]).astype(np.int8)
    error = dequantized_error(quantized, scale, 0, weights)
    assert np.abs(error).max() > 0.01
    # Constant inputs per channel: E[x] is all there is to know of them, and the correction is exact.
    means = random.normal(size=6) + 1
    per_group, shift = means.reshape(groups, -1), convolution_shift(error, means)
    for channel in range(6):
        inputs = per_group[channel // (6 // groups)]
        exact = (weights[channel].sum(axis=-1) * inputs).sum()
        rounded = ((quantized[channel] * scale[channel]).sum(axis=-1) * inputs).sum()
        assert rounded - shift[channel] == pytest.approx(exact, abs=1e-6)


def test_dense() -> None:
    error, means = np.array([[0.5, -0.25], [0.0, 1.0]]), np.array([2.0, 4.0])
    assert dense_shift(error, means).tolist() == [0.0, 4.0]
