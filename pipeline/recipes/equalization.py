"""Cross-layer equalisation: channels between two layers are scaled so that both layers' weights share the grid.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721, section
4.1. Between two layers with nothing or a ReLU in between, f(s x) = s f(x) for s > 0: output channel i of the first may
be divided by s_i and input channel i of the second multiplied by it. With s_i = √(r1_i r2_i) / r2_i both have the range
√(r1_i r2_i), and precision is shared evenly (eq. 11). Chains are gone over until nothing moves. ReLU6 is no such f.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_MOST_SWEEPS = 40
_SETTLED = 1e-3  # relative change of the largest scale: a thousandth of a step
# One channel is not to be scaled more than this: activations are quantized too, with one scale for all channels.
_LARGEST_SCALE = 64.0


@dataclass(slots=True)
class Layer:
    """weights [O, I, window]; a depthwise layer has one input channel for each output, [C, 1, window]. bias [O]."""

    weights: Array
    bias: Array | None
    depthwise: bool


def equalize(layers: Mapping[str, Layer], pairs: Sequence[tuple[str, str]]) -> None:
    """Scale the channels between the layers of each pair, in place; the function they compute stays the same."""
    for _ in range(_MOST_SWEEPS):
        moved = 0.0
        for first, second in pairs:
            scales = _scales(layers[first], layers[second])
            _apply(layers[first], layers[second], scales)
            moved = max(moved, float(np.abs(np.log(scales)).max(initial=0.0)))
        if moved < _SETTLED:
            return


def _scales(first: Layer, second: Layer) -> Array:
    made = np.abs(first.weights).max(axis=(1, 2))
    taken = np.abs(second.weights).max(axis=(1, 2) if second.depthwise else (0, 2))
    alive = (made > 0) & (taken > 0)  # a channel that is always 0, or never looked at, has no range to share
    ratio = np.sqrt(np.where(alive, made, 1.0) / np.where(alive, taken, 1.0))
    scales: Array = np.clip(np.where(alive, ratio, 1.0), 1 / _LARGEST_SCALE, _LARGEST_SCALE)
    return scales


def _apply(first: Layer, second: Layer, scales: Array) -> None:
    first.weights = first.weights / scales[:, None, None]
    if first.bias is not None:
        first.bias = first.bias / scales
    second.weights = second.weights * (scales[:, None, None] if second.depthwise else scales[None, :, None])


def fits(first: Layer, second: Layer) -> bool:
    """Whether the first's outputs are the second's inputs, channel by channel (a flattening in between is not)."""
    inputs = second.weights.shape[0] if second.depthwise else second.weights.shape[1]
    return bool(first.weights.shape[0] == inputs)
