"""Rebuild the example's photos from the scikit-image wheel (0.26.0): `python build_photos.py` in this folder.

Every photo is free to redistribute (NOTICE.md) and serves one set only. Of each there is the whole picture, cut square
and shrunk, and pieces at full resolution. All are 192×192 pixels; deploy.yaml says what is cut and shrunk for the
model, and what is the ground truth.
"""

from pathlib import Path

import skimage
from PIL import Image

SIDE = 192
CALIBRATE = ("hubble_deep_field.jpg", "retina.jpg", "rocket.jpg")
TEST = ("astronaut.png", "chelsea.png", "coffee.png")


def whole(image: Image.Image) -> Image.Image:
    """The largest centred square, shrunk."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def piece(image: Image.Image, across: float, down: float) -> Image.Image:
    """A piece at full resolution; (0.5, 0.5) is the centre, (0, 0) the left top corner."""
    left, top = round((image.width - SIDE) * across), round((image.height - SIDE) * down)
    return image.crop((left, top, left + SIDE, top + SIDE))


def build() -> None:
    """Write both sets beside this file."""
    here, source = Path(__file__).parent, Path(skimage.__file__).parent / "data"
    for folder, photos, places in (
        ("calibrate", CALIBRATE, ((0.5, 0.5), (0.25, 0.75), (0.75, 0.25))),
        ("test", TEST, ((0.5, 0.5),)),
    ):
        (here / folder).mkdir(exist_ok=True)
        for name in photos:
            image = Image.open(source / name).convert("RGB")
            for number, tile in enumerate([whole(image), *(piece(image, *place) for place in places)]):
                tile.save(here / folder / f"{Path(name).stem}_{number}.png", optimize=True)


if __name__ == "__main__":
    build()
