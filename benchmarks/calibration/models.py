"""The networks that are calibrated: MobileNetV2, made here, and EfficientNet-Lite0 with photos, when they are given."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

# Where the made network is kept: it takes half a minute. A folder of its own: other benchmarks have theirs beside it.
CACHE = Path.home() / ".cache" / "edge-deploy" / "benchmarks" / "mobilenet-v2"
_MEAN, _STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
_SIDE = 224


def mobilenet_v2(suffix: str) -> Path:
    """keras.applications' MobileNetV2 with untrained weights, as our exporters write it.

    Weights decide nothing about time or memory. Its batch norms have seen a few images, so that activations are spread
    as in a trained network.
    """
    path = CACHE / f"mobilenet_v2.{suffix}"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "benchmarks.calibration.make_mobilenet", str(CACHE)], check=True)
    return path


def images(count: int, seed: int = 0) -> Iterator[Array]:
    """Smooth random images [1, 224, 224, 3] in −1 … 1, made one by one."""
    for number in range(count):
        random = np.random.default_rng([seed, number])
        coarse = Image.fromarray(random.integers(0, 256, (14, 14, 3), dtype=np.uint8))
        fine = np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.float32)
        yield (fine / 127.5 - 1)[None]


def photos(folder: Path, part: str) -> tuple[list[Array], list[str]]:
    """The photos of EfficientNet-Lite0's folder, [1, 224, 224, 3], and of which photo each is a crop."""
    found = sorted((folder / "photos" / part).iterdir())
    pixels = [np.asarray(Image.open(path).convert("RGB"), np.float32) / 255 for path in found]
    return [((image - _MEAN) / _STD)[None] for image in pixels], [
        path.stem.rpartition("-")[0] or path.stem for path in found
    ]


def laid_out(sample: Array, shape: tuple[int, ...]) -> Array:
    """A sample [1, h, w, 3] as an input of this shape takes it."""
    return np.ascontiguousarray(sample if shape[-1] == 3 else sample.transpose(0, 3, 1, 2))
