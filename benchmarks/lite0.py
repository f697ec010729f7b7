"""EfficientNet-Lite0 with photos: a folder the reader names, or one made once from PyPI packages.

The network's wheels and the photos are those of `benchmarks.recipes`: 20 photos of ImageNet (`foolbox` 3.3.4), five
crops of each. The first eight photos calibrate and the other twelve judge, so that no photo is on both sides. A whole
subject in the middle is too easy for a comparison: every quantizer answers as float does. So there are twenty *closer
looks* at each of the twelve as well, squares of a quarter to 0.6 of the short edge from anywhere in the photo.
"""

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.precision import CACHE, fetched
from benchmarks.recipes import CALIBRATING, PHOTOS, crops, exported, shrunk

# A folder with lite0.onnx, lite0.tflite and photos/{calibrate,test,closer}, 224² pixels each. A photo's crops are
# NAME-0.png, NAME-1.png …: they are judged as one, because they resemble each other.
GIVEN = "BENCHMARK_EFFICIENTNET_LITE0"


@cache
def lite0() -> Path:
    """The folder; made in a minute when there is none.

    Raises:
        RuntimeError: a package cannot be had, or PyTorch does not export the network.
    """
    if given := os.environ.get(GIVEN):
        return Path(given).resolve()
    folder = CACHE / "efficientnet-lite0-looks"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        made = Path(place) / "made"
        made.mkdir()
        exported(made)
        (made / "tflite.float").rename(made / "lite0.tflite")
        (made / "raw.onnx").rename(made / "lite0.onnx")
        for number, file in enumerate(sorted((fetched(PHOTOS) / "foolbox" / "data").glob("imagenet_*.jpg"))):
            part = made / "photos" / ("calibrate" if number < CALIBRATING else "test")
            part.mkdir(parents=True, exist_ok=True)
            photo = Image.open(file).convert("RGB")
            for place_of, crop in enumerate(crops(shrunk(photo))):
                Image.fromarray(np.ascontiguousarray(crop)).save(part / f"{file.stem}-{place_of}.png")
            if part.name == "test":
                _look_closer(photo, part.with_name("closer"), file.stem, number)
        shutil.move(made, folder)
    return folder


def _look_closer(photo: Image.Image, folder: Path, name: str, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    for number in range(_LOOKS):
        side = random.uniform(0.25, 0.6) * min(photo.size)
        left, top = (random.uniform(0, length - side) for length in photo.size)
        look = photo.resize((224, 224), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        look.save(folder / f"{name}-{number}.png")


_LOOKS = 20
