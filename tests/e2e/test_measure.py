"""`deploy measure` and `deploy compare`, as a user runs them on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from old_runtimes import old_python
from PIL import Image
from projects import DEPLOY, Project, Ran, project
from tiny_models import digest_of, slow_onnx_bundle

from pipeline import codec
from pipeline.measuring.log import FOLDER, kept
from pipeline.release.bundle import write_bundle
from pipeline.release.records import ClassModel, DeviceBudgets, Golden, Manifest, Observed, ReleasedData, ReleasedSource

QUICK = ("--block", "0.05 s", "--max-time", "15 s")
SHORT = ("--block", "0.05 s", "--max-time", "5 s")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = project(tmp_path_factory.mktemp("measure"))
    made.write()
    return made


def deploy(at: Project, *arguments: str) -> Ran:
    done = subprocess.run(
        [*DEPLOY, *arguments], cwd=at.folder, capture_output=True, text=True, timeout=120, check=False
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_measurement_carries_its_doubt_and_is_kept(folder: Project) -> None:
    ran = deploy(folder, "measure", "onnx-float32", *QUICK, "--pause", "10 ms", "--profile", "--json")
    (found,) = json.loads(ran.out)
    assert all(op["us"] >= 0 for op in found["profile"]["ops"])
    assert {op["op"] for op in found["profile"]["ops"]} & {"Gemm", "MatMul", "FusedMatMul", "Conv", "FusedGemm"}
    assert ran.status == (0 if found["trusted"] else 4)
    session = found["session"]
    assert len(session["blocks"]) >= 5
    median = found["latency"]["median"]
    assert median["low"] <= median["value"] <= median["high"]
    assert median["processes"] == len(session["blocks"])
    assert len(session["duty"]["A"]["warm_ns"]) == 8
    for block in session["blocks"]:
        assert {"other_cpu_share", "clock_step_ms"} <= block["measurement"]["conditions"].keys()
        assert block["measurement"]["answer"]["max_steps"] <= 1
    assert [s.blocks for s in kept(folder.state, "local")][-1][0].measurement.warm_ns


def test_another_process_is_seen_and_named_as_the_doubt(folder: Project) -> None:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        ran = deploy(folder, "measure", "onnx-float32", *QUICK, "--pause", "0")
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert ran.status == 4
    assert "! background load: other processes took" in ran.out
    assert "not to be trusted" in ran.out


def test_one_core_and_threads_are_what_was_asked(folder: Project) -> None:
    core = max(os.sched_getaffinity(0))
    ran = deploy(
        folder, "measure", "onnx-float32", *QUICK, "--pause", "0", "--cpus", str(core), "--threads", "2", "--json"
    )
    (found,) = json.loads(ran.out)
    for block in found["session"]["blocks"]:
        assert block["measurement"]["conditions"]["cpus_allowed"] == str(core)
        assert block["measurement"]["threads"] == 2
    gone = deploy(folder, "measure", "onnx-float32", *QUICK, "--cpus", "4095")
    assert gone.status == 2 and "the cores [4095] cannot be used" in gone.err


def test_a_comparison_decides_by_the_margin(folder: Project) -> None:
    ran = deploy(
        folder, "compare", "onnx-float32", "onnx-int8", *QUICK, "--margin", "100 share", "--json", "--html", "c.html"
    )
    page = (folder.folder / "c.html").read_text()
    assert "seconds since the session began" in page and "<h3>onnx-int8</h3>" in page
    (found,) = json.loads(ran.out)
    assert found["comparison"]["verdict"] == "not-slower"
    assert found["comparison"]["smallest_detectable"] > 0
    labels = [block["label"] for block in found["session"]["blocks"]]
    assert labels.count("A") == labels.count("B")
    same = deploy(folder, "compare", "onnx-int8", "onnx-int8")
    assert same.status == 2 and "against itself" in same.err


def release_of(folder: Path, sequence: int, iterations: int) -> Path:
    """A release for the class `boards`, whose one inference counts so far."""
    bundle = slow_onnx_bundle(folder, iterations)
    blob, inputs, expected = (digest_of(path) for path in bundle.files)
    sizes = [path.stat().st_size for path in bundle.files]
    golden = Golden(inputs=inputs, inputs_bytes=sizes[1], expected=expected, expected_bytes=sizes[2])
    data = ReleasedData(sha256="b" * 64, preprocess="d" * 64, count=1)
    model = ClassModel(
        recipe="onnx-float32", format="onnx", file="model.onnx", blob=blob, size_bytes=sizes[0], golden=(golden,),
        max_steps=1.0, budgets=DeviceBudgets(), runtime={},
    )  # fmt: skip
    record = Manifest(
        name="net", sequence=sequence, content="c" * 64, classes={"boards": model}, calibration=data, test=data,
        source=ReleasedSource(file="net.onnx", sha256="a" * 64, kind="onnx"), tools={}, settings={}, budgets={},
        observed=Observed(devices={}, verdicts={}, reasons={}), files={},
    )  # fmt: skip
    path = folder.parent / f"net-{sequence}.release"
    write_bundle(path, codec.encode(record), {digest_of(file): file for file in bundle.files}, {})
    return path


def decided(here: Project, *arguments: str) -> Ran:
    """`deploy compare`; on a busy machine it is undecided at first, and says to measure longer."""
    sessions = here.state / FOLDER
    before = set(sessions.glob("*"))
    for max_time in ("5 s", "20 s", "60 s"):
        ran = deploy(here, "compare", *arguments, "--block", "0.05 s", "--max-time", max_time)
        if ran.status != 4 or ('"verdict": "undecided"' not in ran.out and "is undecided" not in ran.out):
            break
        for path in set(sessions.glob("*")) - before:
            path.unlink()  # what follows counts the sessions
    return ran


def test_a_regression_against_the_last_release_is_found_and_kept_in_the_history(tmp_path: Path) -> None:
    here = project(tmp_path / "here", targets={"pi": {"class": "boards"}, "other": {}})
    here.write()
    old, new = (release_of(tmp_path / str(number), number, count) for number, count in ((1, 2000), (2, 6000)))
    ran = decided(here, str(old), str(new), "--target", "pi", "--margin", "5 %")
    assert ran.status == 1, ran.out + ran.err
    assert "✗ net 2 (onnx-float32) is slower" in ran.out
    back = decided(here, str(new), str(old), "--target", "pi", "--margin", "5 %", "--json")
    (found,) = json.loads(back.out)
    assert found["comparison"]["verdict"] == "not-slower" and found["comparison"]["faster"]
    points = json.loads(deploy(here, "history", "--metric", "latency_p50", "--json", "--html", "h.html").out)
    assert [(point["release"], point["source"]) for point in points] == [
        (1, "session"), (2, "session"), (2, "session"), (1, "session")
    ]  # fmt: skip
    assert all(point["interval"][0] <= point["value"] <= point["interval"][1] for point in points)
    assert points[1]["value"] > points[0]["value"]
    assert "deploy compare A B" in (here.folder / "h.html").read_text()
    shown = deploy(here, "history", "--metric", "latency_p90", "--target", "pi")
    assert shown.out.count("release 2, measured") == 2 and "onnx-float32, measured" in shown.out.splitlines()[-1]
    said = deploy(here, "measure", str(old), *SHORT, "--pause", "0", "--target", "pi")
    assert "measured on pi before" in said.out.splitlines()[-1] and "deploy compare A B" in said.out.splitlines()[-1]
    none = deploy(here, "compare", str(old), str(new), *SHORT, "--target", "other")
    assert none.status == 2 and "has no model for the class 'default'" in none.err


def test_a_sweep_names_the_best_number_of_threads(folder: Project) -> None:
    ran = deploy(folder, "measure", "onnx-float32", "--block", "0.05 s", "--max-time", "4 s", "--sweep")
    assert "← best" in ran.out and ran.out.splitlines()[0].startswith("DEVICE")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["measure", "onnx-int9"], "there is no recipe 'onnx-int9', did you mean 'onnx-int8'"),
        (["measure", "onnx-int8", "--cpus", "0-x"], "--cpus: '0-x' is no core"),
        (["measure", "onnx-int8", "--max-time", "soon"], "--max-time: 'soon' is not a positive quantity"),
        (["measure", "onnx-int8", "--target", "pi"], "no device or group is called 'pi'"),
        (["measure", "onnx-auto"], "a search is part of `deploy run`"),
    ],
)
def test_a_mistake_is_told(folder: Project, arguments: list[str], said: str) -> None:
    ran = deploy(folder, *arguments)
    assert ran.status == 2 and said in ran.err


def test_without_root_a_governor_is_refused_by_name(folder: Project) -> None:
    if Path("/sys/devices/system/cpu/cpufreq/policy0/scaling_governor").exists():
        pytest.skip("this machine has a governor, which a test is not to change")
    ran = deploy(folder, "measure", "onnx-float32", *QUICK, "--governor", "performance")
    assert ran.status == 3 and "has no governor to set" in ran.err


def test_the_whole_pipeline_is_timed_on_the_device_with_and_without_pillow(tmp_path: Path) -> None:
    """The old environment has numpy and a runtime, as boards do, and no Pillow."""
    steps: list[Any] = [{"center_crop": 12}, {"resize": 8}, {"scale": "1/255"}, {"layout": "nchw"}]
    data = {"calibrate": "calibrate", "test": "test", "preprocess": steps}
    made = project(tmp_path, data=data, targets={"local": {}, "old": {"python": old_python("onnxruntime")}})
    random = np.random.default_rng(0)
    for part in ("calibrate", "test"):
        (tmp_path / part).mkdir()
        for number in range(3):
            Image.fromarray(random.integers(0, 256, (15, 17, 3), np.uint8)).save(tmp_path / part / f"{number}.png")
    made.write()
    ran = deploy(
        made, "measure", "onnx-int8", "--block", "0.02 s", "--max-time", "1 s", "--pause", "0", "--pipeline", "--json"
    )
    here, there = (found["pipeline"] for found in json.loads(ran.out))
    for found in (here, there):
        assert found["whole"]["input_steps"] == pytest.approx(0, abs=0.01)
        assert found["alike"] == "the device prepares the sample as the host does"
        names = [part["name"] for part in found["whole"]["parts"]]
        assert names == ["decode", "center_crop", "resize", "scale", "layout", "model input", "inference", "outputs"]
    assert all(part["us"] > 0 for part in here["whole"]["parts"])
    untimed = {part["name"] for part in there["whole"]["parts"] if isinstance(part["us"], dict)}
    assert untimed == {"decode", "resize"}
    assert "Pillow is not on the device" in there["whole"]["parts"][0]["us"]["reason"]


def test_an_answer_like_the_hosts_has_no_first_differing_layer(folder: Project) -> None:
    ran = deploy(folder, "measure", "onnx-int8", "--where-different")
    assert ran.status == 0 and "the answer is the host's" in ran.out
