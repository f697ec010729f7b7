"""Ctrl-C and kill in every stage: nothing half-written, nobody left running, and the next run goes on from there."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from projects import Project, distribution, project

from pipeline.store import file_digest

# Put on the path of the process under test: sends it a real SIGINT at a known place of the program, without which
# the stages that last a millisecond could not be hit. FILE:FUNCTION, when it is first called; FILE:FUNCTION>BUILTIN,
# when it is about to call that.
_INTERRUPT_AT = """
import os, signal, sys

at = os.environ.get("TEST_INTERRUPT_AT", "")
if at and "pipeline.cli.main" in sys.orig_argv:
    file, function = at.split(":")
    function, _, builtin = function.partition(">")

    def watch(frame, event, argument):
        code = frame.f_code
        if event != ("c_call" if builtin else "call") or (builtin and argument.__name__ != builtin):
            return
        if code.co_name == function and code.co_filename.endswith(file):
            sys.setprofile(None)
            os.kill(os.getpid(), signal.SIGINT)

    sys.setprofile(watch)
"""

# A data function that waits when the job named in the environment reads samples.
_DATA = """
import os, sys, time
from pathlib import Path
import numpy as np

def _wait():
    frame, functions = sys._getframe(), set()
    while frame:
        functions.add(frame.f_code.co_name)
        frame = frame.f_back
    if os.environ.get("TEST_WAIT_IN") in functions:
        Path("waiting").write_text(str(os.getpid()))
        time.sleep(120)

def _made(seed):
    random = np.random.default_rng(seed)
    for _ in range(3):
        yield {"image": random.normal(size=(3, 8, 8)).astype("float32")}

def calibrate_set():
    _wait()
    yield from _made(1)

def test_set():
    _wait()
    yield from _made(2)
"""


# A converter that waits likewise.
_RECIPE = """
import os, shutil, time
from pathlib import Path

class Slow:
    summary, format, start, tools = "for a test", "onnx", "float", ()

    def quantize(self, ingredients, output):
        output.write_bytes(b"half a model")
        if os.environ.get("TEST_WAIT_IN") == "the slow recipe":
            Path("waiting").write_text(str(os.getpid()))
            time.sleep(120)
        shutil.copyfile(ingredients.float_model, output)

    def why_float(self, op):
        return "because"

SLOW = Slow()
"""


@pytest.fixture
def here(tmp_path: Path) -> Project:
    made = project(tmp_path / "project", data={"calibrate": "data.py:calibrate_set", "test": "data.py:test_set"})
    made.config["recipes"] = ["onnx-int8", "onnx-slow"]
    (made.folder / "data.py").write_text(_DATA)
    points = "[edge_deploy.recipes]\nonnx-slow = slow_recipe:SLOW\n"
    distribution(tmp_path / "site", "slow_recipe_dist", points, {"slow_recipe": _RECIPE})
    (tmp_path / "site" / "sitecustomize.py").write_text(_INTERRUPT_AT)
    made.env = {"PYTHONPATH": str(tmp_path / "site")}
    return made


def started(here: Project, **environment: str) -> "subprocess.Popen[str]":
    command = here.command()
    command["env"].update(environment)
    return subprocess.Popen(**command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.02)


def session_members(leader: int) -> list[str]:
    """Living processes of the run, its agents too, which have sessions of their own but our folder in their words."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            words = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[3]) == leader:
            found.append(words)
    return found


def processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            inside = (entry / "cwd").readlink().is_relative_to(folder)
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words and (inside or str(folder) in words) and int(entry.name) != os.getpid():
            found.append(words)
    return found


def assert_nobody_left(here: Project, leader: int) -> None:
    end = time.monotonic() + 10
    while left := [*session_members(leader), *processes_of(here.folder)]:
        assert time.monotonic() < end, left
        time.sleep(0.05)


def assert_all_is_whole(here: Project) -> None:
    """Every file with a live name is what its name says: blobs by digest, records and the report by parsing."""
    for blob in here.state.glob("blobs/sha256/*/*"):
        assert file_digest(blob) == blob.name, blob
    for blob in here.state.glob("local-device/blobs/sha256/*"):
        assert file_digest(blob) == blob.name, blob
    for record in here.records():
        envelope = json.loads(record.read_text())
        assert {"kind", "blobs", "record", "made_from"} <= envelope.keys()
        for digest in envelope["blobs"]:
            assert (here.state / "blobs" / "sha256" / digest[:2] / digest).exists(), record
    out = here.folder / "deploy-out"
    if (out / "report.json").exists():
        report = here.report()
        for candidate in report["candidates"]:
            assert file_digest(out / candidate["path"]) == candidate["sha256"]
    for model in out.glob("models/*"):
        assert re.fullmatch(r"onnx-(slow|int8)\.onnx", model.name), model
        digest = file_digest(model)
        assert (here.state / "blobs" / "sha256" / digest[:2] / digest).exists(), model


def assert_interrupted(here: Project, leader: int, status: int, err: str) -> None:
    assert status == 130, err
    assert err.rstrip().endswith("interrupted: finished steps are kept, the same command goes on from there"), err
    assert "Traceback" not in err, err
    assert_nobody_left(here, leader)
    assert_all_is_whole(here)


def test_ctrl_c_in_every_stage_then_resume(here: Project) -> None:
    """One state folder all along: each run gets one stage further than the one before, and repeats nothing."""
    finished: list[str] = []
    # What the worker does, while it is doing it; the signal comes from outside, to the process alone.
    for job, next_finished in (
        ("prepare", []),
        ("compare_hop", ["export source"]),
        ("calibrate", ["export onnx"]),
        ("quantize", ["calibrate onnx"]),
        ("the slow recipe", ["quantize onnx-int8"]),
        ("validate", ["quantize onnx-slow"]),
    ):
        finished += next_finished
        (here.folder / "waiting").unlink(missing_ok=True)
        process = started(here, TEST_WAIT_IN=job)
        wait_for(here.folder / "waiting", process)
        process.send_signal(signal.SIGINT)
        status, err = ended(process)
        assert_interrupted(here, process.pid, status, err)
        assert set(finished) <= set(re.findall(r"^(.*): (?:kept|done in .*)$", err, re.M)), (job, err)
        assert not (here.folder / "deploy-out").exists()
        kept = {p.parent.name + " " + p.name.rpartition("-")[0] for p in here.records()}
        assert kept == set(finished), job
    # What this process does itself, at a place of its own choosing.
    for at in (
        "stages/package.py:run",
        "targets/delivery.py:deliver",  # push
        "targets/devices/agent.py:bench",  # measure
        "stages/gate.py:decide",
        "shutil.py:_fastcopy_sendfile>sendfile",  # a model's file in deploy-out is there, and empty
        "reporting/files.py:_write>write",
        "stages/out_folder.py:sweep",
    ):
        process = started(here, TEST_INTERRUPT_AT=at)
        status, err = ended(process)
        assert status == 130, (at, err)
        assert_interrupted(here, process.pid, status, err)
    last = here.run()
    assert last.status == 0, last.err
    assert len(last.kept) == 8, last.err  # export ×2, calibrate, quantize ×2, validate ×2, package
    assert [step.split()[0] for step in last.done] == ["push", "measure", "gate", "release", "report"]
    assert_all_is_whole(here)
    assert not list((here.folder / "deploy-out").rglob(".*")), "unfinished files beside the report"
    assert not list((here.state / "tmp").iterdir())


@pytest.mark.parametrize(
    "at", ["pipeline/store.py:_write>write", "pipeline/store.py:_write>fsync", "pipeline/store.py:add_file>fsync"]
)
def test_ctrl_c_while_the_state_is_written(here: Project, at: str) -> None:
    process = started(here, TEST_INTERRUPT_AT=at)
    status, err = ended(process)
    assert_interrupted(here, process.pid, status, err)
    assert here.run("--recipe", "onnx-int8").status == 0
    assert_all_is_whole(here)


def test_ctrl_c_while_the_device_measures(here: Project) -> None:
    """The whole terminal group gets the signal, and the benchmark process on the device is in the middle of it."""
    here.config["measure"] = {"warm": "60 s", "max_samples": 100_000_000}
    process = started(here)
    assert process.stderr
    for line in process.stderr:
        if line.startswith("push local: done"):
            break
    end = time.monotonic() + 20
    while not any("bench" in words or "local-device" in words for words in processes_of(here.folder)):
        assert time.monotonic() < end
        time.sleep(0.02)
    time.sleep(1.0)  # the agent is up; its benchmark child starts within that
    os.killpg(process.pid, signal.SIGINT)
    before = time.monotonic()
    status, err = ended(process)
    assert time.monotonic() - before < 10
    assert_interrupted(here, process.pid, status, err)


def test_sigkill_takes_the_worker_along_and_the_next_run_works(here: Project) -> None:
    process = started(here, TEST_WAIT_IN="calibrate")
    wait_for(here.folder / "waiting", process)
    worker = int((here.folder / "waiting").read_text())
    assert Path(f"/proc/{worker}").exists()
    process.kill()
    ended(process)
    assert_nobody_left(here, process.pid)
    assert_all_is_whole(here)
    litter = here.state / "tmp" / "half-made"
    litter.write_bytes(b"half")
    again = here.run()
    assert again.status == 0, again.err
    assert again.kept == ["export source", "export onnx"]
    assert not litter.exists()
    assert_all_is_whole(here)


def test_two_runs_in_one_state_folder(here: Project) -> None:
    process = started(here, TEST_WAIT_IN="calibrate")
    try:
        wait_for(here.folder / "waiting", process)
        second = here.run()
        assert second.status == 2
        assert f"another run holds {here.state} (process {process.pid})" in second.err
        assert "--state DIR" in second.err
        beside = here.run("--state", "elsewhere", "--out", "elsewhere-out", "--recipe", "onnx-int8")
        assert beside.status == 0, beside.err
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        status, err = ended(process)
    assert_interrupted(here, process.pid, status, err)


def test_an_earlier_report_outlives_an_interrupted_run(here: Project) -> None:
    """Also its models: they go away only when the new report is complete."""
    assert here.run().status == 0
    before = {path: path.read_bytes() for path in (here.folder / "deploy-out").rglob("*") if path.is_file()}
    here.config["recipes"] = ["onnx-int8"]
    process = started(here, TEST_INTERRUPT_AT="reporting/files.py:_write>write")
    status, err = ended(process)
    assert_interrupted(here, process.pid, status, err)
    assert {path: path.read_bytes() for path in before} == before
    assert here.run().status == 0
    assert sorted(path.name for path in (here.folder / "deploy-out" / "models").iterdir()) == ["onnx-int8.onnx"]
