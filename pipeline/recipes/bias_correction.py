"""Bias correction: the mean error that rounding the weights makes in an output is subtracted from its bias.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721, section
4.2: E[ỹ] − E[y] = ε E[x], with ε the rounding error of the weights and E[x] the mean input, per channel. E[x] is
observed here, over the calibration samples, instead of derived from batch normalisation, which is folded away by then.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
# A mean over so many samples (times the positions in each) moves by less than a rounding step with more.
MOST_SAMPLES = 64


def channel_means(cache: Path, observed: Iterable[Mapping[str, Array]], axes: Mapping[str, int]) -> dict[str, Array]:
    """Mean of each tensor per channel over the samples.

    Args:
        cache: where they are kept: a search needs the same ones in every trial.
        observed: tensor -> values, one mapping for each sample.
        axes: tensor -> its channel axis.
    """
    if not cache.exists():
        sums: dict[str, Array] = {}
        count = 0
        for values in observed:
            count += 1
            for name, array in values.items():
                moved = np.moveaxis(array.astype(np.float64), axes[name], -1)
                mean = moved.reshape(-1, moved.shape[-1]).mean(axis=0)
                sums[name] = sums[name] + mean if name in sums else mean
        with cache.open("wb") as file:
            np.savez(file, *[total / count for total in sums.values()], names=np.array(list(sums)))
    with np.load(cache) as kept:
        return {str(name): kept[f"arr_{place}"] for place, name in enumerate(kept["names"])}


def convolution_shift(error: Array, means: Array) -> Array:
    """ε E[x] of a convolution: error [O, I/groups, window…], means [I]; returns [O]."""
    outputs, per_group = error.shape[:2]
    groups = means.shape[0] // per_group
    window = error.reshape(groups, outputs // groups, per_group, -1).sum(axis=-1)
    shift: Array = np.einsum("goi,gi->go", window, means.reshape(groups, per_group)).reshape(outputs)
    return shift


def dense_shift(error: Array, means: Array) -> Array:
    """ε E[x] of a matrix product: error [O, I], means [I]; returns [O]."""
    shift: Array = error @ means
    return shift


def dequantized_error(quantized: Array, scale: Array, axis: int, weights: Array) -> Array:
    """What rounding did to the weights: symmetric, one scale per slice of `axis`, or one for all."""
    shape = [1] * quantized.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    error: Array = quantized.astype(np.float64) * scale.astype(np.float64).reshape(shape) - weights.astype(np.float64)
    return error


def taken(samples: Iterable[Mapping[str, Array]]) -> Iterator[Mapping[str, Array]]:
    """The samples that are looked at."""
    return islice(iter(samples), MOST_SAMPLES)
