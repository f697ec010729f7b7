"""Resize through Pillow: uint8 RGB as Pillow does it for everyone, anything else channel by channel in float."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]

_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


def resize(array: NDArray[Any], size: tuple[int, int], filter: Filter) -> NDArray[Any]:
    """Resize [height, width, channels] to `size` = (height, width).

    uint8 is resampled and rounded by Pillow as 8-bit channels, as training pipelines built on Pillow do; floats stay
    float32. Other integer types come back in their own type, rounded and clipped to its range.
    """
    # In its 8-bit modes Pillow's order is (width, height).
    wanted, kind = (size[1], size[0]), _PILLOW[filter]
    if array.dtype == np.uint8 and array.shape[2] == 3:
        return np.asarray(Image.fromarray(array).resize(wanted, kind))
    if array.dtype == np.uint8:
        planes = [np.asarray(Image.fromarray(plane).resize(wanted, kind)) for plane in _planes(array)]
        return np.stack(planes, axis=-1)
    floats = array.astype(np.float32)
    resized = np.stack([np.asarray(Image.fromarray(plane).resize(wanted, kind)) for plane in _planes(floats)], axis=-1)
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        return np.clip(np.rint(resized.astype(np.float64)), limits.min, limits.max).astype(array.dtype)
    return resized


def _planes(array: NDArray[Any]) -> list[NDArray[Any]]:
    return [np.ascontiguousarray(array[:, :, channel]) for channel in range(array.shape[2])]
