"""Quantization-aware recipes through the command line: planned, kept, reported, and refused where they cannot be."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from projects import Project, one_error, project

from pipeline.worker import Worker

TRAINED = ["export qat-w4", "export qat-w4-tflite", "calibrate qat-w4-tflite"]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("net") / "net.keras"
    with pytest.MonkeyPatch.context() as patch, Worker() as worker:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        worker.call("source_models:keras_classifier", path=path)
    return path


@pytest.fixture
def here(tmp_path: Path, net: Path) -> Project:
    shutil.copy(net, tmp_path / "net.keras")
    for part, seed, count in (("calibrate", 1, 13), ("test", 2, 3)):
        random = np.random.default_rng(seed)
        np.savez(tmp_path / f"{part}.npz", image=random.normal(size=(count, 8, 8, 3)).astype(np.float32))
    config = {
        "source": {"model": "net.keras"},
        # Of 13 samples this seed leaves out the first, to which the exports are compared all the same.
        "data": {"calibrate": {"path": "calibrate.npz", "seed": 18}, "test": "test.npz"},
        "recipes": ["litert-int8-w4", "litert-qat-int8-w4"],
        "qat": {"epochs": 5, "batch_size": 4, "samples": 12},
        "measure": {"warm": "40 ms"},
    }
    return Project(tmp_path, config)


def test_a_run_with_fine_tuning(here: Project) -> None:
    planned = json.loads(here.run("--dry-run", "--json").out)
    ran = here.run()
    assert ran.status == 0, ran.err
    labels = [row["stage"] if row["name"] == row["stage"] else f"{row['stage']} {row['name']}" for row in planned]
    assert ran.done == labels
    assert [label for label in labels if "qat-w4-" in label or label == "export qat-w4"] == TRAINED
    candidates = {candidate["recipe"]: candidate for candidate in here.report()["candidates"]}
    rounded, trained = candidates["litert-int8-w4"], candidates["litert-qat-int8-w4"]
    assert trained["findings"][0].startswith("fine-tuned by distillation, without labels: 10 calibration samples")
    assert rounded["findings"] == []
    assert trained["fidelity"]["sqnr_db"] > rounded["fidelity"]["sqnr_db"] + 2, "judged against the user's own model"
    assert not list(here.state.glob("unfinished/*")), "no checkpoint is left of what is done"

    here.config["recipes"].append("litert-float32")
    assert _repeated(here) & {*TRAINED, "export tflite"} == set()
    here.config["qat"]["seed"] = 1
    assert _repeated(here) & {*TRAINED, "export tflite"} == set(TRAINED)


def _repeated(here: Project) -> set[str]:
    rows = json.loads(here.run("--dry-run", "--json").out)
    return {f"{row['stage']} {row['name']}" for row in rows if not row["kept"]}


def test_what_is_wrong_is_said_before_anything_runs(here: Project, tmp_path: Path) -> None:
    here.config["qat"] = {"epochs": 0, "loss": "loss.py:mine"}
    ran = here.run()
    assert ran.status == 2
    assert "deploy.yaml:17: qat.epochs: should be greater than or equal to 1, not 0" in one_error(ran)
    here.config["qat"] = {"loss": "loss.py:mine"}
    assert "qat.loss: there is no file loss.py" in one_error(here.run())
    onnx = project(tmp_path / "onnx", recipes=["onnx-qat-int8"])
    refused = onnx.run()
    assert refused.status == 2
    assert "onnx-qat-int8: only a Keras model can be fine-tuned, this is a onnx source" in one_error(refused)
