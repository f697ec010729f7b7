"""Calibration on the command line: what a run says and leaves, merging without the old data, and drift."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from projects import DEPLOY, Project, project, samples

from pipeline.samples import DataSpec
from pipeline.stages.calibrate_jobs import calibrate
from targets.records import TensorSpec

EVERY = np.random.default_rng(7).normal(size=(12, 3, 8, 8)).astype(np.float32)
INPUTS = (TensorSpec(name="image", shape=(1, 3, 8, 8), dtype="float32"),)


@dataclass(frozen=True)
class Parts:
    """A run with all samples, and sketches of the same float model over some of them, from "other machines"."""

    both: Project
    whole: Path
    first: Path
    second: Path
    bright: Path


def deploy(*arguments: object, code: int = 0) -> Any:
    ran = subprocess.run([*DEPLOY, "calibration", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert ran.returncode == code, ran.stderr
    return json.loads(ran.stdout) if "--json" in arguments else ran.stdout


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    both = project(tmp_path_factory.mktemp("both"), recipes=["onnx-int8"])
    np.savez(both.folder / "calibrate.npz", image=EVERY)
    ran = both.run()
    assert ran.status == 0, ran.err
    assert "calibrate onnx: will take about " in ran.err
    digest = both.report()["calibrations"]["onnx"]["model"]

    def observed(name: str, images: np.ndarray) -> Path:
        folder = tmp_path_factory.mktemp(name)
        np.save(folder / "images.npy", images)
        calibrate(
            format="onnx",
            model=both.state / "blobs" / "sha256" / digest[:2] / digest,
            calibrate=DataSpec(path="images.npy"),
            inputs=INPUTS,
            base=folder,
            scratch=folder,
            report=lambda done, total: None,
        )
        return (folder / "sketch").rename(folder / f"{name}.sketch")

    return Parts(
        both=both,
        whole=both.folder / "deploy-out" / "calibration" / "onnx.sketch",
        first=observed("first", EVERY[:5]),
        second=observed("second", EVERY[5:]),
        bright=observed("bright", EVERY * 3 + 2),
    )


def test_the_report_says_how_ranges_came_about(parts: Parts) -> None:
    found = parts.both.report()["calibrations"]["onnx"]
    assert (found["method"], found["samples"], found["passes"]) == ("best", 12, 1)
    assert sum(found["chosen_methods"].values()) == found["tensors"]
    assert found["coverage"][-1] == {"samples": 12, "shift": 0.0}
    assert found["path"] == "calibration/onnx.sketch"
    shown = deploy("show", parts.whole, "--json")
    assert (shown["sha256"], shown["model"]) == (found["sketch_digest"], found["model"])
    for name in ("report.html", "report.md"):
        assert found["sketch_digest"] in (parts.both.folder / "deploy-out" / name).read_text()


def test_merging_gives_what_calibrating_with_all_samples_gives(parts: Parts, tmp_path: Path) -> None:
    merged = deploy("merge", parts.second, parts.first, "-o", tmp_path / "m.sketch", "--json")
    assert merged["samples"] == 12
    assert (tmp_path / "m.sketch").read_bytes() == parts.whole.read_bytes()
    # Nothing is counted twice.
    deploy("merge", parts.whole, parts.first, "-o", tmp_path / "n.sketch", code=2)
    assert not (tmp_path / "n.sketch").exists()


def test_a_run_appends_to_sketches_without_the_old_data(parts: Parts, tmp_path: Path) -> None:
    here = project(tmp_path / "appended", recipes=["onnx-int8"], calibration={"merge": [str(parts.first)]})
    np.savez(here.folder / "calibrate.npz", image=EVERY[5:])
    ran = here.run()
    assert ran.status == 0, ran.err
    found, both = here.report(), parts.both.report()
    assert found["calibrations"]["onnx"]["sketch_digest"] == both["calibrations"]["onnx"]["sketch_digest"]
    assert found["candidates"][0]["sha256"] == both["candidates"][0]["sha256"], "the very same int8 model"


def test_drift_is_found_and_can_fail_a_script(parts: Parts) -> None:
    calm = deploy("drift", parts.first, parts.second, "--json", "--max-psi", "0.25")
    assert {one["tensor"] for one in calm} >= {"image", "c", "r", "scores"}
    loud = deploy("drift", parts.whole, parts.bright, "--json", "--max-psi", "0.25", code=1)
    assert next(one for one in loud if one["tensor"] == "image")["psi"] > 0.25
    assert "over 0.25 (strong)" in deploy("drift", parts.whole, parts.bright)


def test_settings_of_the_section(tmp_path: Path) -> None:
    here = project(tmp_path / "set", recipes=["onnx-int8"])
    samples(here.folder / "calibrate.npz", 9, seed=1)
    here.config["calibration"] = {"method": "min-max", "samples": 4, "seed": 3, "memory": "1 B"}
    ran = here.run()
    assert ran.status == 0, ran.err
    report = here.report()
    found = report["calibrations"]["onnx"]
    assert (found["method"], found["samples"], found["seed"]) == ("min-max", 4, 3)
    assert report["calibration"]["count"] == 4
    assert found["passes"] > 1
    assert "the largest tensor alone does not fit in 1.00 B" in ran.err
    here.config["calibration"] = {"method": "percentil"}
    ran = here.run()
    assert ran.status == 2
    assert "calibration.method: should be 'min-max', 'percentile', 'entropy', 'mse' or 'best'" in ran.err
    here.config["calibration"] = {"samples": 4}
    here.config["data"]["calibrate"] = {"path": "calibrate.npz", "limit": 3}
    ran = here.run()
    assert ran.status == 2
    assert "say one of them" in ran.err
