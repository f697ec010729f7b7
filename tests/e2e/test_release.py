"""Releases through the command line: run, verify, change the calibration data, run, compare."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from projects import DEPLOY, Project, Ran, one_error, project, samples


def deploy(here: Project, *arguments: str) -> Ran:
    done = subprocess.run([*DEPLOY, *arguments], cwd=here.folder, capture_output=True, text=True, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def answer(here: Project, *arguments: str) -> Any:
    return json.loads(deploy(here, *arguments, "--json").out)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Release 1, run twice; release 2, with other calibration samples. Signed."""
    made = project(tmp_path_factory.mktemp("release"), recipes=["onnx-int8"], targets={"pi": {"class": "boards"}})
    made.write()
    assert deploy(made, "release", "keygen", "key.pem").status == 0
    made.config["release"] = {"key": "key.pem", "license": "Apache-2.0", "data_license": "CC-BY-4.0"}
    first = made.run()
    assert first.status == 0, first.err
    bundle = made.folder / "deploy-out" / "net-1.release"
    before = bundle.read_bytes()
    bundle.unlink()
    again = made.run()
    assert "release 1, as before" in again.out
    assert bundle.read_bytes() == before, "the same evidence is the same bytes, however the clock ran"
    samples(made.folder / "calibrate.npz", 5, seed=9)
    changed = made.run()
    assert changed.status == 0, changed.err
    assert "release 2, signed by ed25519:" in changed.out
    return made


def test_verify(here: Project, tmp_path: Path) -> None:
    bundles = ["deploy-out/net-1.release", "deploy-out/net-2.release"]
    good = answer(here, "release", "verify", *bundles, "--key", "key.pem.pub")
    assert [(row["verdict"], row["sequence"], bool(row["signed_by"])) for row in good] == [
        ("good", 1, True),
        ("good", 2, True),
    ]
    assert deploy(here, "release", "keygen", str(tmp_path / "other.pem")).status == 0
    other = deploy(here, "release", "verify", *bundles, "--key", str(tmp_path / "other.pem.pub"))
    assert other.status == 1 and other.out.count("is signed by no key that is trusted here") == 2
    broken = bytearray((here.folder / bundles[0]).read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / "broken.release").write_bytes(broken)
    assert deploy(here, "release", "verify", str(tmp_path / "broken.release")).status == 1


def test_diff_and_history(here: Project) -> None:
    found = answer(here, "diff", "1", "deploy-out/net-2.release")
    assert (found["before"]["sequence"], found["after"]["sequence"], found["same_content"]) == (1, 2, False)
    changes = {(change["section"], change["key"]): change for change in found["changes"]}
    count = changes["data", "calibration count"]
    assert (count["before"], count["after"]) == (4, 5)
    assert ("data", "calibration samples") in changes and ("recipe", "boards: blob") in changes
    assert not any(section in ("source", "tools", "settings") for section, _ in changes)
    runs = answer(here, "history")
    assert [(run["sequence"], run["new"]) for run in runs] == [(1, True), (1, False), (2, True)]
    points = answer(here, "history", "--metric", "latency_p90", "--target", "pi")
    assert len(points) == 3 and all(point["value"] > 0 and point["recipe"] == "onnx-int8" for point in points)
    assert [row["classes"] for row in answer(here, "release", "list")] == [{"boards": "onnx-int8"}] * 2
    one_error(deploy(here, "diff", "1", "3"))
    one_error(deploy(here, "history", "--metric", "latency_p99"))


def test_what_a_release_says(here: Project) -> None:
    manifest = answer(here, "release", "show", "2")["manifest"]
    assert manifest["calibration"]["count"] == 5 and manifest["calibration"]["license"] == "CC-BY-4.0"
    model = manifest["classes"]["boards"]
    assert model["targets"] == ["pi"] and list(model["runtime"]) == ["onnxruntime"] and len(model["golden"]) == 1
    assert "key.pem" not in json.dumps(manifest)
    card = deploy(here, "release", "show", "2", "--card").out
    assert card.startswith("---\nlicense: apache-2.0\n") and "## For boards" in card
    bom = json.loads(deploy(here, "release", "show", "2", "--bom").out)
    models = [part for part in bom["components"] if part["type"] == "machine-learning-model"]
    assert model["blob"] in {part["hashes"][0]["content"] for part in models}
    assert "timestamp" not in bom["metadata"]


def test_nothing_chosen_nothing_released(here: Project, tmp_path: Path) -> None:
    poor = project(tmp_path / "poor", recipes=["onnx-float32"], budgets={"size": "1 kB"})
    ran = poor.run()
    assert ran.status == 1
    assert "nothing was chosen, so there is nothing to release" in ran.out
    assert not list((poor.folder / "deploy-out").glob("*.release"))
    assert answer(poor, "history")[0]["release"] == ""


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"release": {"passphrase": "x"}}, "release.passphrase: a secret does not belong"),
        ({"targets": {"pi": {"host": "pi", "password": "x"}}}, "targets.pi.password: a secret does not belong"),
        ({"release": {"key": "-----BEGIN PRIVATE KEY-----"}}, "release.key: a secret does not belong"),
        ({"targets": {"pi": {"class": "../x"}}}, "targets.pi.class"),
        ({"release": {"key": "none.pem"}}, "none.pem: No such file"),
    ],
)
def test_refused_before_anything_runs(tmp_path: Path, section: dict[str, Any], says: str) -> None:
    ran = project(tmp_path, **section).run()
    assert ran.status == 2
    assert says in one_error(ran)
    assert not os.path.lexists(tmp_path / "deploy-out")
