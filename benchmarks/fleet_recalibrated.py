"""Two releases of one network, calibrated with other photos: for `benchmarks.fleet`."""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.precision import CACHE
from benchmarks.recipes import exported, photos
from pipeline.runtimes.runtime import open_model
from pipeline.samples import DataSection
from pipeline.worker import Worker
from targets.records import TensorSpec


def recalibrated(folder: Path) -> tuple[Path, Path]:
    """EfficientNet-Lite0 by `litert-int8`, of the same weights with each half of the calibration photos."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, Worker() as worker:
        exported(Path(scratch))
        model = Path(scratch) / "tflite.float"
        name = open_model("tflite", model).inputs[0].name
        made = []
        for number, half in enumerate(np.array_split(photos()[0], 2)):
            base = Path(scratch) / str(number)
            base.mkdir()
            np.savez(base / "photos.npz", **{name: half})
            given = {
                "calibrate": DataSection(calibrate="photos.npz", test="photos.npz").spec("calibrate"),
                "inputs": (TensorSpec(name=name, shape=(1, *half.shape[1:]), dtype="float32"),),
                "base": base,
                "scratch": base,
            }
            worker.call("pipeline.stages.calibrate_jobs:calibrate", format="tflite", model=model, **given)
            made.append(folder / f"release-{number}.tflite")
            worker.call(
                "pipeline.stages.candidate_jobs:quantize",
                name="litert-int8",
                source=model,
                float_model=model,
                ranges=base / "ranges",
                precisions={},
                repairs=(),
                output=made[-1],
                **given,
            )
    return made[0], made[1]
