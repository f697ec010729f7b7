"""Rounding weights by what that does to a layer's output."""

import numpy as np
import pytest

from pipeline.recipes.rounding import Array, Moments, no_moments, rounded


def _seen(columns: Array) -> Moments:
    moments = no_moments(columns.shape[0], columns.shape[2])
    for part in np.array_split(columns, 3, axis=1):
        moments.add(part)
    return moments


@pytest.mark.parametrize(("groups", "outputs", "inputs"), [(1, 24, 48), (24, 1, 9), (2, 8, 27)])
def test_outputs_move_less_than_by_the_nearest_integers_on_positions_not_seen(
    groups: int, outputs: int, inputs: int
) -> None:
    random = np.random.default_rng(3)
    mixing = random.standard_normal((groups, 2 * inputs // 3, inputs))  # inputs that depend on each other
    positions = random.standard_normal((groups, 4000, mixing.shape[1])) @ mixing + 1.5
    weights = random.standard_normal((groups, outputs, inputs))
    scales = np.abs(weights).max(axis=-1) / 127
    step = scales[:, :, None]

    integers, shift = rounded(weights, scales, _seen(positions[:, :2000]))

    fresh = positions[:, 2000:]
    nearest = fresh @ (np.rint(weights / step) * step - weights).transpose(0, 2, 1)
    ours = fresh @ (integers * step - weights).transpose(0, 2, 1) - shift[:, None, :]
    assert np.square(ours).mean() < 0.6 * np.square(nearest).mean()
    assert np.array_equal(np.abs(integers).max(axis=-1), np.full((groups, outputs), 127))  # gives the same scale again


def test_a_layer_that_saw_only_zeros_is_rounded_to_nearest() -> None:
    weights = np.random.default_rng(0).standard_normal((1, 4, 6))
    scales = np.abs(weights).max(axis=-1) / 127

    integers, shift = rounded(weights, scales, _seen(np.zeros((1, 30, 6))))

    assert np.array_equal(integers, np.rint(weights / scales[:, :, None]))
    assert not shift.any()
