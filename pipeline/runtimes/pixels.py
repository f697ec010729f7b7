"""Models that take an image's bytes: scaling and normalising of the declared preprocessing are inside the file.

Which real-valued sample a byte stands for is written into the file under `edge_deploy.pixels`, so that a sample as the
source model takes it can be given back as the bytes it was made from: x = byte · by + offset, per channel or for all.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.records import Format
from pipeline.runtimes import metadata

Array = np.ndarray[Any, Any]
KEY = "edge_deploy.pixels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """What the bytes of one input mean; one number, or one for each channel of the axis (counted from the end)."""

    by: tuple[float, ...]
    offset: tuple[float, ...]
    axis: int = -1

    @property
    def uniform(self) -> bool:
        return len({*self.by}) == len({*self.offset}) == 1

    @property
    def zero_point(self) -> int | None:
        """The byte that means 0, where there is exactly one for all channels."""
        if not self.uniform:
            return None
        zero = -self.offset[0] / self.by[0]
        return round(zero) if abs(zero - round(zero)) < _EXACT and 0 <= round(zero) <= _MOST else None

    def along(self, values: tuple[float, ...]) -> Array:
        """The values, shaped to multiply an array of the input's shape."""
        return np.array(values).reshape([len(values), *[1] * (-1 - self.axis)])

    def bytes_of(self, real: Array) -> Array:
        """The pixels that these real values were made from."""
        levels = (real.astype(np.float64) - self.along(self.offset)) / self.along(self.by)
        return np.asarray(np.clip(np.rint(levels), 0, _MOST), np.uint8)


_MOST = 255
_EXACT = 1e-6  # of a byte: numbers such as 1/255 are written in decimals


def parse(text: str) -> dict[str, Affine]:
    """What stands under the key."""
    return {
        str(name): Affine(by=tuple(own["by"]), offset=tuple(own["offset"]), axis=int(own["axis"]))
        for name, own in (json.loads(text) if text else {}).items()
    }


def pixels_of(format: Format, path: Path) -> dict[str, Affine]:
    """Input → what its bytes mean, as the file says; empty for a model that takes real values."""
    return parse(metadata.read(format, path, KEY))


def write_pixels(format: Format, path: Path, pixels: Mapping[str, Affine]) -> None:
    plain = {name: {"by": own.by, "offset": own.offset, "axis": own.axis} for name, own in pixels.items()}
    metadata.write(format, path, KEY, json.dumps(plain, sort_keys=True))
