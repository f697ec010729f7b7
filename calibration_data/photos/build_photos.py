"""Rebuild the example's photos from the scikit-image wheel (0.26.0): `python build_photos.py` in this folder.

Every photo is free to redistribute (NOTICE.md). Tiles of 192×192 pixels are cut at full resolution; the pipeline
shrinks them to 96×96 for the model and keeps the tile itself as the ground truth. No photo gives tiles to both sets.
"""

from pathlib import Path

import skimage
from PIL import Image

SIDE = 192
# photo -> left, top corner of each tile
CALIBRATE = {
    "coffee.png": [(10, 10), (204, 100), (330, 180), (400, 20)],
    "rocket.jpg": [(60, 30), (224, 120), (240, 230), (440, 230)],
    "hubble_deep_field.jpg": [(100, 100), (500, 300), (700, 600), (300, 620)],
}
TEST = {
    "astronaut.png": [(140, 10), (20, 300), (300, 150)],
    "chelsea.png": [(60, 50), (130, 90), (250, 100)],
}


def build(photos: dict[str, list[tuple[int, int]]], folder: Path) -> None:
    """Cut the tiles of each photo into `folder`."""
    source = Path(skimage.__file__).parent / "data"
    folder.mkdir(exist_ok=True)
    for name, corners in photos.items():
        image = Image.open(source / name).convert("RGB")
        for number, (left, top) in enumerate(corners, 1):
            tile = image.crop((left, top, left + SIDE, top + SIDE))
            tile.save(folder / f"{Path(name).stem}_{number}.png", optimize=True)


if __name__ == "__main__":
    here = Path(__file__).parent
    build(CALIBRATE, here / "calibrate")
    build(TEST, here / "test")
