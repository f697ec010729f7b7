"""A small Keras model that both contract suites of quantization start from: exported, fine-tuned, and calibrated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.samples import DataSection


@dataclass(frozen=True)
class Exported:
    folder: Path
    prepared: dict[str, Any]

    def model(self, format: str, variant: str = "", branch: str = "") -> Path:
        return self.folder / branch / f"{format}{variant}" / "model"

    def ranges(self, format: str, variant: str = "", branch: str = "") -> Path:
        return self.folder / branch / f"{format}{variant}" / "ranges"


DATA = DataSection(calibrate="calibrate.npz", test="test.npz")
