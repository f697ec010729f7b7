"""ONNX models of several files, the whole way: made, pushed, measured, released, rolled out.

That a model is large is a matter of one number, which is small here.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from projects import DEPLOY, Project
from sshd import Sshd

from pipeline.model_files import beside
from pipeline.store import file_digest

_LARGEST_BYTES = 60_000
_ROWS, _WIDTH = 600, 64
RECIPES = (
    "onnx-float32",
    "onnx-float16",
    "onnx-weight-int8-b32",
    "onnx-weight-int4-b64",
    "onnx-dynamic-int8",
    "onnx-int8",
    "onnx-int8-bias",
)
DATA = """
import numpy as np

def _samples(seed, count):
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield {"ids": random.integers(0, 600, 8)}

def calibrate():
    return _samples(1, 4)

def test():
    return _samples(2, 6)
"""


def write_language_model(path: Path) -> None:
    """An embedding and dense layers, 0.7 MB of weights in two files of names as exporters give."""
    random = np.random.default_rng(0)
    weights = {"table": random.normal(size=(_ROWS, _WIDTH))}
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x0"], name="embed")]
    for number, (rows, columns) in enumerate(((_WIDTH, 512), (512, 512), (512, _WIDTH))):
        weights[f"w{number}"] = random.normal(0, rows**-0.5, (rows, columns))
        weights[f"b{number}"] = random.normal(0, 0.1, columns)
        nodes.append(helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"m{number}"], name=f"dense{number}"))
        nodes.append(helper.make_node("Add", [f"m{number}", f"b{number}"], [f"a{number}"], name=f"add{number}"))
        nodes.append(helper.make_node("Relu", [f"a{number}"], [f"x{number + 1}"], name=f"relu{number}"))
    graph = helper.make_graph(
        nodes,
        "language",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 8])],
        [helper.make_tensor_value_info("x3", TensorProto.FLOAT, [1, 8, _WIDTH])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, str(path), save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=4096)


@pytest.fixture(scope="module")
def project(shared_sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("large")
    write_language_model(folder / "net.onnx")
    (folder / "data.py").write_text(DATA)
    pi = {
        "host": "127.0.0.1",
        "port": shared_sshd.port,
        "identity_file": str(shared_sshd.identity),
        "known_hosts": str(shared_sshd.known_hosts),
        "python": sys.executable,
        "root": str(folder / "device"),
    }
    config = {
        "source": {"model": "net.onnx"},
        "data": {"calibrate": "data.py:calibrate", "test": "data.py:test"},
        "recipes": list(RECIPES),
        "measure": {"warm": "40 ms"},
        "targets": {"here": {"transport": "local"}, "pi": pi},
        "choose": "size",
    }
    return Project(folder, config, {"EDGE_DEPLOY_LARGEST_ONNX_BYTES": str(_LARGEST_BYTES)})


@pytest.fixture(scope="module")
def report(project: Project) -> dict[str, Any]:
    done = project.run()
    assert done.status == 0, done.err
    return project.report()


def test_every_recipe_takes_and_gives_weights_in_files_beside_the_model(
    project: Project, report: dict[str, Any]
) -> None:
    found = {one["recipe"]: one for one in report["candidates"]}
    source_bytes = sum(path.stat().st_size for path in project.folder.glob("*w[0-9]")) + _ROWS * _WIDTH * 4
    assert found["onnx-float32"]["size_bytes"] == pytest.approx(source_bytes, rel=0.05)
    for name in RECIPES:
        one = found[name]
        assert one["verdict"] == "pass", (name, one["reason"], one["findings"])
        for target in ("here", "pi"):
            assert one["targets"][target]["answer"]["max_steps"] <= 3
            assert one["targets"][target]["warm_ms"]["n"] >= 3
        model = project.folder / "deploy-out" / one["path"]
        assert model.stat().st_size < _LARGEST_BYTES
        assert beside("onnx", model) == tuple(one["beside"]) and one["beside"]
        for digest, size_bytes in one["beside"].items():
            assert file_digest(model.parent / digest) == digest
            assert (model.parent / digest).stat().st_size == size_bytes
            assert (project.folder / "device" / "blobs" / "sha256" / digest).exists()
        assert one["size_bytes"] == model.stat().st_size + sum(one["beside"].values())
        onnx.load(str(model))  # what was written is for everybody's tools
    assert found["onnx-float16"]["size_ratio"] == pytest.approx(0.5, abs=0.05)
    assert found["onnx-weight-int4-b64"]["size_ratio"] < 0.2
    assert found["onnx-int8"]["size_ratio"] < 0.3


def test_a_second_run_has_nothing_to_do(project: Project, report: dict[str, Any]) -> None:
    again = project.run()
    assert again.status == 0, again.err
    assert set(again.done) <= {"push here", "push pi", "measure here", "measure pi", "gate", "release", "report"}
    (project.folder / "w1").touch()
    weights = np.fromfile(project.folder / "w1", np.float32)
    (-weights).tofile(project.folder / "w1")  # the model's own file is the same
    try:
        assert "export source" in project.run("--recipe", "onnx-float32").done
    finally:
        weights.tofile(project.folder / "w1")


def test_the_bundle_brings_all_files_into_the_devices_release(project: Project, report: dict[str, Any]) -> None:
    bundle = project.folder / "deploy-out" / report["bundle"]
    for words in (["release", "verify", "--whole", str(bundle)], ["push", "--release", str(bundle)]):
        done = subprocess.run([*DEPLOY, *words], cwd=project.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    current = project.folder / "device" / "current"
    manifest = json.loads((current / "manifest.json").read_text())["classes"]["default"]
    assert {path.name for path in current.iterdir()} >= {"model.onnx", *manifest["beside"]}
    # An application on the device opens it as any other model.
    session = onnxruntime.InferenceSession(str(current / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.run(None, {"ids": np.zeros((1, 8), np.int64)})[0].shape == (1, 8, _WIDTH)
