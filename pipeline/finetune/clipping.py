"""Where to clip weights before training."""

from typing import Any

import numpy as np

# Shares of a channel's largest weight that are tried as its clip: below half, the loss by clipping always wins.
_CLIP_SHARES = np.linspace(0.5, 1.0, 26)


def largest_weight(weights: np.ndarray[Any, Any], *, axes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Per channel, with 1 in all other axes; never zero."""
    others = tuple(axis for axis in range(weights.ndim) if axis not in {a % weights.ndim for a in axes})
    return np.asarray(np.maximum(np.abs(weights).max(axis=others, keepdims=True), 1e-9), np.float32)


def best_clip_share(weights: np.ndarray[Any, Any], *, bits: int, axes: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The clip per channel of least squared rounding error, as a share of the largest weight."""
    largest, limit = largest_weight(weights, axes=axes), 2 ** (bits - 1) - 1
    others = tuple(axis for axis in range(weights.ndim) if axis not in {a % weights.ndim for a in axes})
    errors = []
    for share in _CLIP_SHARES:
        scale = share * largest / limit
        rounded = np.clip(np.rint(weights / scale), -limit, limit) * scale
        errors.append(np.square(rounded - weights).sum(axis=others, keepdims=True))
    return np.asarray(_CLIP_SHARES[np.argmin(errors, axis=0)], np.float32)
