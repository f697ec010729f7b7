"""Weights rounded so that a layer's output, not each weight, changes least.

Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
arXiv:2210.17323, after Hassibi & Stork 1993 (optimal brain surgeon): weights are rounded one by one, and those still to
come make up for the error so far, by the second moments of the layer's inputs over the calibration samples. Here the
moments are about the mean, because what an error does to the mean output is put into the bias exactly (bias
correction, arXiv:1906.04721).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
# Of the mean variance, added to each: GPTQ's own choice. Inputs that hardly vary must not excuse a large error.
_DAMPING = 0.01
_LARGEST = 127  # of symmetric int8 weights


@dataclass(slots=True)
class Moments:
    """Sums over positions of a layer's inputs, for each of its groups: [groups, n] and [groups, n, n]."""

    first: Array
    second: Array
    count: int

    def add(self, columns: Array) -> None:
        """Take in positions [groups, positions, n]."""
        columns = columns.astype(np.float32)
        self.first += columns.sum(axis=1, dtype=np.float64)
        self.second += columns.transpose(0, 2, 1) @ columns
        self.count += columns.shape[1]

    def mean(self) -> Array:
        return np.asarray(self.first / self.count)

    def covariance(self) -> Array:
        mean = self.mean()
        return np.asarray(self.second / self.count - mean[:, :, None] * mean[:, None, :])


def no_moments(groups: int, inputs: int) -> Moments:
    """Moments before the first sample."""
    return Moments(np.zeros((groups, inputs)), np.zeros((groups, inputs, inputs)), 0)


def rounded(weights: Array, scales: Array, moments: Moments) -> tuple[Array, Array]:
    """The integers for float weights [groups, outputs, n], and what the bias has to lose [groups, outputs].

    Args:
        weights: of each group's outputs.
        scales: of one step, [groups, outputs].
    """
    step = np.where(scales > 0, scales, 1.0)[:, :, None].astype(np.float64)
    nearest = np.clip(np.rint(weights / step), -_LARGEST, _LARGEST)
    chosen = _compensated(weights, step, moments.covariance())
    # What the tools take the scale from must stay the largest.
    ends = np.abs(nearest) == _LARGEST
    chosen = np.where(ends, nearest, chosen)
    covariance = moments.covariance()
    better = _error(chosen, weights, step, covariance) < _error(nearest, weights, step, covariance)
    chosen = np.where(better[:, :, None], chosen, nearest)
    shift = np.einsum("goi,gi->go", chosen * step - weights, moments.mean())
    return chosen.astype(np.int8), shift


def _error(integers: Array, weights: Array, step: Array, covariance: Array) -> Array:
    """Variance of the error of each output."""
    error = integers * step - weights
    return np.asarray(np.einsum("goi,goi->go", error @ covariance, error))


def _compensated(weights: Array, step: Array, covariance: Array) -> Array:
    size = covariance.shape[-1]
    diagonal = np.einsum("gii->gi", covariance)
    level = diagonal.mean(axis=-1)
    damped = covariance + (np.where(level > 0, level, 1.0) * _DAMPING)[:, None, None] * np.eye(size)
    # The inputs that vary most come first, while there are many left to make up for their weights' errors.
    order = np.argsort(-diagonal, axis=-1)
    turned = np.take_along_axis(np.take_along_axis(damped, order[:, :, None], 1), order[:, None, :], 2)
    # Row j of the upper factor of the inverse says how each later weight makes up for an error of weight j.
    upper = np.linalg.cholesky(np.linalg.inv(turned)).transpose(0, 2, 1)
    left = np.take_along_axis(weights.astype(np.float64), order[:, None, :], 2)
    integers = np.zeros_like(left)
    for place in range(size):
        integers[:, :, place] = np.clip(np.rint(left[:, :, place] / step[:, :, 0]), -_LARGEST, _LARGEST)
        error = (left[:, :, place] - integers[:, :, place] * step[:, :, 0]) / upper[:, place, place][:, None]
        left[:, :, place:] -= error[:, :, None] * upper[:, None, place, place:]
    back = np.argsort(order, axis=-1)
    return np.asarray(np.take_along_axis(integers, back[:, None, :], 2))
