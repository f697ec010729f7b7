"""Decoding one image file to uint8 RGB [height, width, 3] (16-bit gray: float32 in 0–255)."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.errors import InputError

from .files import check_file

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def list_images(folder: Path) -> tuple[Path, ...]:
    """Return the images below a folder, hidden ones excluded, sorted by relative path."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder", hint="paths are relative to deploy.yaml's folder")
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not path.is_dir()
    ]
    if not found:
        raise InputError(f"{folder}: there is no image in this folder", hint=f"it takes {', '.join(sorted(SUFFIXES))}")
    return tuple(sorted(found, key=lambda path: path.relative_to(folder).as_posix()))


def load_image(path: Path) -> NDArray[Any]:
    """Decode one image to [height, width, 3], turned as its EXIF data says; InputError names the file.

    Transparency is dropped and palettes, gray and CMYK become RGB, as `Image.convert("RGB")` in a training pipeline.
    16-bit gray becomes float32 in 0–255 with its full precision, so that the same `scale: 1/255` fits it.
    """
    check_file(path, "image")
    try:
        with warnings.catch_warnings():
            # Pillow only warns about an image between one and two times its limit; decoding it is as dangerous.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                frames = getattr(image, "n_frames", 1)
                upright = ImageOps.exif_transpose(image) if frames == 1 else None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: the image is too large to decode safely: {error}", hint="shrink it first") from error
    except Exception as error:
        # Decoders raise anything on damaged bytes: OSError, SyntaxError, ValueError, struct.error, zlib.error …
        raise InputError(f"{path}: cannot decode this image: {error}", hint="fetch it again, or remove it") from error
    if upright is None:
        raise InputError(f"{path}: the file holds {frames} pictures", hint="save one picture per file")
    return _to_rgb(upright, path)


def _to_rgb(image: Image.Image, path: Path) -> NDArray[Any]:
    if image.mode in _SIXTEEN_BIT:
        gray = np.asarray(image).astype(np.float32) / 257  # 65535 / 255
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise InputError(
            f"{path}: 32-bit images have no known range", hint="save it with 8 or 16 bits, or use an .npz of arrays"
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))
