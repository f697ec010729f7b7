"""One worker for the contract tests of sources and recipes: importing TensorFlow costs seconds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_model import DATA, Exported

from pipeline.finetune.settings import Origin, Settings
from pipeline.recipes.recipe import WEIGHT_BITS
from pipeline.worker import Worker


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    with pytest.MonkeyPatch.context() as patch, Worker() as running:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # so that it finds `source_models`
        yield running


@pytest.fixture(scope="session")
def exported(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The small Keras model, exported to both formats and calibrated, as it is and fine-tuned."""
    folder = tmp_path_factory.mktemp("exported")
    worker.call("source_models:keras_classifier", path=folder / "net.keras")
    for part, seed in (("calibrate", 1), ("test", 2)):
        random = np.random.default_rng(seed)
        np.savez(folder / f"{part}.npz", image=random.normal(size=(6, 8, 8, 3)).astype(np.float32))
    common = {"calibrate": DATA.spec("calibrate"), "base": folder}
    prepared = worker.call(
        "pipeline.stages.export_jobs:prepare",
        kind="keras",
        model=folder / "net.keras",
        signature="",
        shapes={},
        test=DATA.spec("test"),
        scratch=folder,
        **common,
    )
    inputs = prepared["inputs"]
    for format in ("tflite", "onnx"):
        scratch = _exported(worker, folder, format, inputs=inputs, **common)
        leveled = folder / f"{format}-cle"
        leveled.mkdir()
        pairs = worker.call(
            "pipeline.stages.export_jobs:equalize", format=format, model=scratch / "model", output=leveled / "model"
        )
        assert pairs == 1, "the convolution and the depthwise one after it; no other two follow each other"
        for place in (scratch, leveled):
            _calibrate(worker, place, format, inputs=inputs, **common)
    for start, bits in WEIGHT_BITS.items():
        branch = folder / start
        branch.mkdir()
        worker.call(
            "pipeline.stages.finetune_jobs:finetune",
            origin=Origin(
                kind="keras",
                model=folder / "net.keras",
                factory="",
                base=folder,
                prepared=folder / "model",
                inputs=inputs,
                outputs=prepared["outputs"],
                scratch=branch,
            ),
            data=DATA.spec("calibrate"),
            calibrate=DATA.spec("calibrate"),
            weight_bits=bits,
            part=4,
            settings=Settings(epochs=2, patience=2, batch_size=4, learning_rate=1e-3, held_out=0.3, seed=0),
            loss="",
            checkpoint=branch / "checkpoint",
        )
        for format in ("tflite", "onnx") if bits == 8 else ("tflite",):
            scratch = _exported(worker, branch, format, inputs=inputs, **common)
            made = _calibrate(worker, scratch, format, inputs=inputs, learned=branch / "learned", **common)
            assert not made["notes"], "every learned range has found its tensor"
            assert made["chosen_methods"]["learned"] >= 5, "image, two convolutions, pooling, scores"
    return Exported(folder, prepared)


def _exported(worker: Worker, source: Path, format: str, **data: Any) -> Path:
    scratch = source / format
    scratch.mkdir()
    more = {"opset": 17, "archived": True} if format == "onnx" else {}
    worker.call(f"pipeline.stages.export_jobs:to_{format}", source=source / "model", scratch=scratch, **more)
    if format == "onnx":
        worker.call("pipeline.stages.export_jobs:make_quantizable", scratch=scratch, **data)
    return scratch


def _calibrate(worker: Worker, place: Path, format: str, **common: Any) -> dict[str, Any]:
    made: dict[str, Any] = worker.call(
        "pipeline.stages.calibrate_jobs:calibrate", format=format, model=place / "model", scratch=place, **common
    )
    return made
