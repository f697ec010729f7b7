"""The declared preprocessing on the device: what `preprocess:` of deploy.yaml names, in numpy.

It must give what the host's own steps give (pipeline/samples/preprocess.py); the host compares. Decoding and resizing
need Pillow, which is not always there: then NoPillow is raised and the host's own array is where it goes on.
"""

from __future__ import annotations

import io
from typing import Any, Callable

from .wire import Json

LUMA = (0.299, 0.587, 0.114)
SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


class NoPillow(Exception):
    """Pillow cannot be imported here; the text says why."""


def pillow() -> Any:
    try:
        from PIL import Image
    except Exception as fault:  # a build for another CPU or libjpeg raises what it likes
        raise NoPillow("Pillow is not on the device (%s)" % fault) from None
    return Image


def decode(kind: str, raw: bytes) -> Any:
    """One sample's file as an array: a picture as [height, width, 3], or a .npy as it is."""
    import numpy as np

    if kind == "array":
        return np.load(io.BytesIO(raw), allow_pickle=False)
    pillow()
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(raw)) as opened:
        image: Any = ImageOps.exif_transpose(opened)
    if image.mode in SIXTEEN_BIT:
        return np.repeat((np.asarray(image).astype(np.float32) / 257)[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def center_crop(array: Any, size: Any) -> Any:
    height, width = pair(size)
    top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
    return array[top : top + height, left : left + width]


def crop(array: Any, top: int, left: int, height: int, width: int) -> Any:
    return array[top : top + height, left : left + width]


def resize(array: Any, size: Any, filter: str, keep_aspect: bool) -> Any:
    import numpy as np

    image = pillow()
    height, width = pair(size)
    if keep_aspect:
        ratio = height / min(array.shape[:2])
        height, width = round(array.shape[0] * ratio), round(array.shape[1] * ratio)
    kind = getattr(image, "Resampling", image)  # an enumeration since Pillow 9.1
    kind = getattr(kind, "BOX" if filter == "area" else filter.upper())

    def resized(plane: Any) -> Any:
        return np.asarray(image.fromarray(np.ascontiguousarray(plane)).resize((width, height), kind))

    if array.dtype == np.uint8 and array.shape[2] == 3:
        return resized(array)
    planes = array if array.dtype == np.uint8 else array.astype(np.float32)
    made = np.stack([resized(planes[:, :, channel]) for channel in range(array.shape[2])], axis=-1)
    if array.dtype != np.uint8 and array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        return np.clip(np.rint(made.astype(np.float64)), limits.min, limits.max).astype(array.dtype)
    return made


def scale(array: Any, by: float, offset: float) -> Any:
    import numpy as np

    return (array.astype(np.float64) * by + offset).astype(np.float32)


def mean_std(array: Any, mean: list[float], std: list[float]) -> Any:
    import numpy as np

    return ((array.astype(np.float64) - np.array(mean)) / np.array(std)).astype(np.float32)


def layout(array: Any, order: str) -> Any:
    import numpy as np

    return np.ascontiguousarray(array.transpose(2, 0, 1)) if order == "nchw" else array


def grayscale(array: Any) -> Any:
    import numpy as np

    if array.shape[2] == 1:
        return array
    luma = (array.astype(np.float64) @ np.array(LUMA))[:, :, None]
    return (np.rint(luma) if array.dtype.kind in "iu" else luma).astype(array.dtype)


def pad(array: Any, size: Any, value: float) -> Any:
    import numpy as np

    missing = [max(0, want - got) for want, got in zip(pair(size), array.shape)]  # noqa: B905
    around = [(extra // 2, extra - extra // 2) for extra in missing]
    return np.pad(array, [*around, (0, 0)], constant_values=array.dtype.type(value))


def dtype(array: Any, dtype: str) -> Any:
    import numpy as np

    wanted = np.dtype(dtype)
    return (np.rint(array) if array.dtype.kind == "f" and wanted.kind in "iu" else array).astype(wanted)


STEPS: dict[str, Callable[..., Any]] = {
    step.__name__: step for step in (center_crop, crop, resize, scale, mean_std, layout, grayscale, pad, dtype)
}


def encoded(array: Any, tensor: Json) -> Any:
    """In the model's input type, through its scale and zero point where it has them, with the batch axis."""
    import numpy as np

    wanted: Any = np.dtype(tensor["dtype"])
    if array.dtype != wanted and tensor["scale"]:
        limits = np.iinfo(wanted)
        array = np.clip(np.rint(array / tensor["scale"]) + tensor["zero_point"], limits.min, limits.max)
    array = np.ascontiguousarray(array, dtype=wanted)
    return array[None] if tensor["batch"] else array
