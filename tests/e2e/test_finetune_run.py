"""Quantization-aware recipes through the command line: planned, kept, reported, and refused where they cannot be."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from projects import Project, one_error, project

from pipeline.samples import DataSpec
from pipeline.stages.calibrate_jobs import calibrate
from pipeline.worker import Worker
from targets.records import TensorSpec

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

    here.config["recipes"] = ["litert-qat-int8-w4"]
    _with_merged_ranges(here)
    del here.config["calibration"]
    here.config["recipes"] = ["litert-int8-w4", "litert-qat-int8-w4", "litert-float32"]
    assert _repeated(here) & {*TRAINED, "export tflite"} == set()
    here.config["qat"]["seed"] = 1
    assert _repeated(here) & {*TRAINED, "export tflite"} == set(TRAINED)


def _with_merged_ranges(here: Project) -> None:
    """Ranges begin with those of `calibration.merge`, which the samples to train on alone would not give."""
    assert max(_learned(here).values()) < 8
    digest = here.report()["calibrations"]["tflite"]["model"]
    np.save(here.folder / "bright.npy", 9 * np.random.default_rng(3).normal(size=(8, 8, 8, 3)).astype(np.float32))
    calibrate(
        format="tflite",
        model=here.state / "blobs" / "sha256" / digest[:2] / digest,
        calibrate=DataSpec(path="bright.npy"),
        inputs=(TensorSpec(name="image", shape=(1, 8, 8, 3), dtype="float32"),),
        base=here.folder,
        scratch=here.folder,
        report=lambda done, total: None,
    )
    here.config["calibration"] = {"merge": ["sketch"], "method": "min-max"}
    ran = here.run()
    assert ran.status in (0, 1), ran.err  # coarser for what is tested: whether it passes is not the matter
    [trained] = here.report()["candidates"]
    assert "5 of 5 learned ranges began with those of calibration.merge" in trained["findings"]
    image = next(high for name, high in _learned(here).items() if name.startswith("image"))
    assert 15 < image < 40, "nine standard deviations of one, three or four times"


def _learned(here: Project) -> dict[str, float]:
    """Upper ends of the ranges learned in the last run."""
    records = sorted(here.state.glob("records/export/*.json"), key=lambda path: path.stat().st_mtime)
    digests = [found[1] for path in records if (found := re.search(r'"learned":\s*"([0-9a-f]{64})"', path.read_text()))]
    blob = here.state / "blobs" / "sha256" / digests[-1][:2] / digests[-1]
    rows = json.loads(blob.read_text())
    return {row["name"]: row["high"] for row in rows}


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
    assert "onnx-qat-int8: only a Keras or PyTorch model can be fine-tuned, this is a onnx source" in one_error(refused)


def test_pytorch(tmp_path: Path) -> None:
    """One training for each width of weights; every qat recipe comes out of a module that a function returns."""
    shutil.copy(Path(__file__).parents[1] / "torch_nets.py", tmp_path / "net.py")
    for part, seed, count in (("calibrate", 1, 24), ("test", 2, 6)):
        random = np.random.default_rng(seed)
        np.savez(tmp_path / f"{part}.npz", image=random.normal(size=(count, 3, 12, 12)).astype(np.float32))
    config = {
        "source": {"model": "net.py:image"},
        "data": {"calibrate": "calibrate.npz", "test": "test.npz"},
        "recipes": ["litert-int8-w4", "litert-qat-int8", "litert-qat-int8-w4", "onnx-qat-int8"],
        "qat": {"epochs": 6, "batch_size": 4},
        "measure": {"warm": "40 ms"},
    }
    here = Project(tmp_path, config)
    ran = here.run(timeout_s=500)  # three exporters are imported, which a loaded machine does slowly
    assert ran.status == 0, ran.err
    assert "export qat-w4: will take about " in ran.err
    found = {candidate["recipe"]: candidate for candidate in here.report()["candidates"]}
    for name, candidate in found.items():
        assert candidate["verdict"] == "pass", (name, candidate["reason"])
        trained = [finding for finding in candidate["findings"] if finding.startswith("fine-tuned by distillation")]
        assert bool(trained) == ("qat" in name), name
        assert not any("without a tensor" in finding for finding in candidate["findings"]), "every range has its place"
    sqnr_db = {name: candidate["fidelity"]["sqnr_db"] for name, candidate in found.items()}
    assert sqnr_db["litert-qat-int8-w4"] > sqnr_db["litert-int8-w4"] + 2
    assert min(sqnr_db["litert-qat-int8"], sqnr_db["onnx-qat-int8"]) > sqnr_db["litert-qat-int8-w4"]
