"""`deploy fit`, and the same check in `deploy run`, on this machine's runtimes and on one of years ago."""

import json
import subprocess
from pathlib import Path
from typing import Any

import dense_models
import numpy as np
import onnx
import pytest
from old_runtimes import old_python, run_there
from projects import DEPLOY, Project, classifier, project

from pipeline.runtimes.runtime import open_model


@pytest.fixture
def here(tmp_path: Path) -> Project:
    targets = {
        "new": {"transport": "local"},
        "old": {"transport": "local", "python": old_python("onnxruntime")},
        "lite": {"transport": "local", "python": old_python("tflite-runtime")},
    }
    return project(tmp_path, targets=targets, recipes=["onnx-float32", "onnx-int8"])


def fit(here: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    here.write()
    return subprocess.run([*DEPLOY, "fit", *arguments], cwd=here.folder, capture_output=True, text=True, timeout=100)


def test_a_fleet_of_three(here: Project) -> None:
    model = dense_models.stamped(here.folder / "net.tflite", 12)
    done = fit(here, model.name, "--json")
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert all("text" in row for row in answer["targets"].values()), answer
    found = {name: row["text"] for name, row in answer["targets"].items()}
    assert found["new"] == "fits"
    assert found["old"] == "does not fit: there is no runtime for tflite"
    assert found["lite"].startswith("fits after lowering: one weight scale in 2 dense layers")
    assert answer["targets"]["lite"]["facts"]["imports"] == {"tflite-runtime": ""}
    assert answer["targets"]["lite"]["lowered"]["max_error"] < 0.01
    assert fit(here, model.name, "--target", "new").returncode == 0


def test_lowered_by_hand(here: Project) -> None:
    model = dense_models.stamped(here.folder / "net.tflite", 12)
    done = fit(here, model.name, "--target", "lite", "--lower", "-o", "small.tflite")
    assert done.returncode == 0, done.stderr
    assert "written: small.tflite" in done.stdout
    expected = open_model("tflite", model).invoke(dense_models.sample())["y"]
    answered = run_there("tflite-runtime", here.folder / "small.tflite", dense_models.sample())["y"]
    assert np.abs(answered - expected).max() < 0.01 * np.ptp(expected)


def test_a_run_lowers_for_the_target_that_needs_it(here: Project) -> None:
    newer = onnx.load_from_string(classifier())
    newer.opset_import[0].version, newer.ir_version = 21, 10
    onnx.save(newer, here.folder / "net.onnx")
    ran = here.run()
    assert ran.status == 3, ran.err + ran.out  # one device is not prepared
    report = here.report()
    assert report["chosen_by_target"]["lite"] is None
    for candidate in report["candidates"]:
        new, old, lite = (candidate["targets"][name] for name in ("new", "old", "lite"))
        assert (new["verdict"], new["fit"], new["path"]) == ("pass", "fits", "")
        assert old["verdict"] == "pass" and old["answer"]["max_steps"] <= 1
        assert old["fit"].startswith("fits after lowering: IR version 10 → 9; ")
        assert onnx.load(here.folder / "deploy-out" / old["path"]).opset_import[0].version == 19
        assert lite["verdict"] == "inconclusive"
        assert lite["reason"] == "not measured: lite: there is no runtime for onnx"
        assert not lite["path"]
    said = " ".join(ran.out.split())
    assert "`deploy targets provision lite`, or there: " in " ".join(ran.err.split())
    assert f"onnx-int8 runs there as {old['path']}: fits after lowering: IR version 10 → 9" in said
    lowered = _lowered(here)
    assert here.run().status == 3 and _lowered(here) == lowered
    # A recipe of the last run is named instead of its file.
    done = fit(here, "onnx-int8", "--target", "old")
    assert done.returncode == 1 and "fits after lowering" in done.stdout
    # What an earlier run left is swept.
    here.config["targets"] = {"new": {"transport": "local"}}
    assert here.run().status == 0 and not _lowered(here)


def _lowered(here: Project) -> dict[str, Any]:
    files = (here.folder / "deploy-out" / "models").glob("*.lowered-*")
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("missing.tflite",), 2, "no such file or recipe"),
        (("net.tflite", "--lower"), 2, "--lower and -o FILE go together"),
        (("deploy.yaml",), 2, "deploy.yaml"),
        (("net.tflite", "--target", "olld"), 2, "olld"),
        (("net.tflite", "--target", "gone"), 3, "gone"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_judged(arguments: tuple[str, ...], status: int, says: str, tmp_path: Path) -> None:
    targets = {"here": {"transport": "local"}, "gone": {"transport": "ssh", "host": "127.0.0.1", "port": 9}}
    made = project(tmp_path, targets=targets)
    dense_models.float_model(tmp_path / "net.tflite")
    done = fit(made, *arguments)
    assert done.returncode == status, done.stdout + done.stderr
    assert says in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
