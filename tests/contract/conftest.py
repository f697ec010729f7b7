"""One worker for the contract tests of sources and recipes: importing TensorFlow costs seconds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from exported_model import DATA, Exported

from pipeline.worker import Worker


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    with pytest.MonkeyPatch.context() as patch, Worker() as running:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))  # so that it finds `source_models`
        yield running


@pytest.fixture(scope="session")
def exported(worker: Worker, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The small Keras model, exported to both formats and calibrated."""
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
    for format in ("tflite", "onnx"):
        scratch = folder / format
        scratch.mkdir()
        more = {"opset": 17, "archived": True} if format == "onnx" else {}
        worker.call(f"pipeline.stages.export_jobs:to_{format}", source=folder / "model", scratch=scratch, **more)
        leveled = folder / f"{format}-cle"
        leveled.mkdir()
        pairs = worker.call(
            "pipeline.stages.export_jobs:equalize", format=format, model=scratch / "model", output=leveled / "model"
        )
        assert pairs == 1, "the convolution and the depthwise one after it; no other two follow each other"
        for place in (scratch, leveled):
            worker.call(
                "pipeline.stages.calibrate_jobs:calibrate",
                format=format,
                model=place / "model",
                inputs=prepared["inputs"],
                scratch=place,
                **common,
            )
    return Exported(folder, prepared)
