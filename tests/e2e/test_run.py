"""Whole runs through the command line: what is repeated, what is kept, and every kind of source and data once."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from projects import DEPLOY, Project, onnx_model, project, samples

ALWAYS = ["push local", "measure local", "gate", "release", "report"]
MADE = [
    "export source",
    "export onnx",
    "calibrate onnx",
    "quantize onnx-float32",
    "quantize onnx-int8",
    "validate onnx-float32",
    "validate onnx-int8",
    "package",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that has been run once; tests copy it."""
    made = project(tmp_path_factory.mktemp("finished"))
    ran = made.run()
    assert ran.status == 0, ran.err
    assert ran.done == [*MADE, *ALWAYS]
    return made


@pytest.fixture
def here(finished: Project, tmp_path: Path) -> Project:
    shutil.copytree(finished.folder, tmp_path / "copy")
    return Project(tmp_path / "copy", json.loads(json.dumps(finished.config)))


def test_nothing_changed(here: Project) -> None:
    again = here.run()
    assert again.status == 0
    assert again.kept == MADE
    assert again.done == ALWAYS
    assert again.out.count("report: ") == 1


def _budget(here: Project) -> None:
    here.config["budgets"] = {"size": "1 kB"}  # float32 has 1.06 kB, int8 more


def _preprocess(here: Project) -> None:
    here.config["data"]["preprocess"] = [{"scale": 0.5}]


def _source(here: Project) -> None:
    path = here.folder / "net.onnx"
    path.write_bytes(path.read_bytes().replace(b"net", b"nut"))  # the name of its graph


def _samples(here: Project) -> None:
    samples(here.folder / "calibrate.npz", 4, seed=9)


def _measure(here: Project) -> None:
    here.config["measure"] = {"warm": "30 ms"}


def _metric(here: Project) -> None:
    (here.folder / "m.py").write_text("def best(outputs, truth):\n    return outputs['scores'].max(axis=1)\n")
    here.config["quality"] = {"metrics": ["m.py:best"]}


def _ranges(here: Project) -> None:
    envelope = json.loads(here.records("calibrate")[0].read_text())
    digest = envelope["record"]["blob"]
    (here.state / "blobs" / "sha256" / digest[:2] / digest).unlink()


def _record(here: Project) -> None:
    here.records("quantize")[1].write_text('{"kind": "Artifact", "blobs": {}, "rec')


def _recipe(here: Project) -> None:
    here.config["recipes"] = ["onnx-float32", "onnx-int8", "onnx-dynamic-int8"]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (_budget, []),
        (_measure, []),
        (_preprocess, MADE),
        (_source, MADE),
        (_samples, MADE),
        (_metric, ["validate onnx-float32", "validate onnx-int8", "package"]),
        (_ranges, ["calibrate onnx", "quantize onnx-int8", "validate onnx-int8", "package"]),
        (_record, ["quantize onnx-int8", "validate onnx-int8", "package"]),
        (_recipe, ["quantize onnx-dynamic-int8", "validate onnx-dynamic-int8", "package"]),
    ],
    ids=lambda value: value.__name__.removeprefix("_") if callable(value) else "",
)
def test_what_a_change_repeats(here: Project, change: Callable[[Project], None], again: list[str]) -> None:
    change(here)
    planned = here.run("--dry-run", "--json")
    repeated = [
        row["stage"] if row["name"] == row["stage"] else f"{row['stage']} {row['name']}"
        for row in json.loads(planned.out)
        if not row["kept"]
    ]
    assert repeated == [*again, *ALWAYS]
    ran = here.run()
    refused = ["release"] if change is _budget else []  # nothing passes
    assert [step for step in repeated if step not in refused] == ran.done, "the plan is what is done"
    assert ran.status == (1 if change is _budget else 0), ran.err
    if change is _budget:
        assert {c["verdict"] for c in here.report()["candidates"]} == {"fail"}
        assert "over the budget of 1.00 kB" in here.report()["candidates"][0]["reason"]
    if change is _metric:
        assert here.report()["candidates"][1]["metrics"]["best"]["value"] > 0


@pytest.mark.parametrize("stage", ["quantize", "gate"])
def test_from_a_stage(here: Project, stage: str) -> None:
    ran = here.run("--from", stage)
    assert ran.status == 0
    order = [*MADE, *ALWAYS]
    first = next(number for number, step in enumerate(order) if step.startswith(stage))
    assert ran.done == [step for number, step in enumerate(order) if number >= first or step in ALWAYS]


def test_one_recipe_of_several_on_one_of_two_targets(here: Project) -> None:
    here.config["targets"] = {"one": {}, "two": {}}
    ran = here.run("--recipe", "onnx-int8", "--target", "two")
    assert ran.status == 0, ran.err
    report = here.report()
    assert [c["recipe"] for c in report["candidates"]] == ["onnx-int8"]
    assert list(report["facts"]) == ["two"]
    assert "quantize onnx-int8" in ran.kept
    assert report["chosen"] == "onnx-int8"
    assert [path.name for path in (here.folder / "deploy-out" / "models").iterdir()] == ["onnx-int8.onnx"]


def test_dry_run_does_nothing(tmp_path: Path) -> None:
    here = project(tmp_path)
    ran = here.run("--dry-run")
    assert (ran.status, ran.err) == (0, "")
    assert [line.split()[0] for line in ran.out.splitlines()] == [
        "export",
        "calibrate",
        "quantize",
        "validate",
        "package",
        "push",
        "measure",
        "gate",
        "release",
        "report",
    ]
    assert "kept" not in ran.out
    assert not here.state.exists()
    assert not (here.folder / "deploy-out").exists()


def test_json_is_one_document_and_the_report(here: Project) -> None:
    ran = here.run("--json")
    assert ran.status == 0
    assert json.loads(ran.out) == here.report()
    assert ran.out.count("\n") == 1


def test_json_with_an_error_is_an_error(here: Project) -> None:
    here.config["choose"] = "speed"
    ran = here.run("--json")
    assert (ran.status, ran.out) == (2, "")
    assert "deploy.yaml:" in ran.err
    assert "choose: should be 'latency'" in ran.err


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_reader_that_goes_away(here: Project, arguments: list[str]) -> None:
    """`deploy run | head -1` gives no traceback, and the exit code is still the verdict."""
    command = here.command(*arguments)
    process = subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 0, err
    assert "Traceback" not in err
    assert "Exception ignored" not in err


def ran_well(here: Project) -> dict[str, Any]:
    ran = here.run()
    assert ran.status == 0, ran.err
    assert "refused" not in ran.err, ran.err
    report = here.report()
    for candidate in report["candidates"]:
        assert candidate["verdict"] == "pass", candidate["reason"]
        for target in candidate["targets"].values():
            assert target["answer"]["finite"]
            assert target["answer"]["max_steps"] <= 3
    return report


def test_two_inputs_from_an_npz(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["left", "w"], ["l"]),
        helper.make_node("Gemm", ["right", "v"], ["r"]),
        helper.make_node("Add", ["l", "r"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["answer"]),
    ]
    weights = {"w": random.normal(size=(8, 4)).astype("f4"), "v": random.normal(size=(6, 4)).astype("f4")}
    here = project(tmp_path)
    (tmp_path / "net.onnx").write_bytes(
        onnx_model(nodes, {"left": [1, 8], "right": [1, 6]}, {"answer": [1, 4]}, weights)
    )
    for name, seed in (("calibrate.npz", 1), ("test.npz", 2)):
        random = np.random.default_rng(seed)
        left, right = (random.normal(size=(5, size)).astype(np.float32) for size in (8, 6))
        np.savez(tmp_path / name, left=left, right=right, label=np.arange(5) % 4)
    here.config["data"]["truth"] = {"array": "label"}
    here.config["data"]["preprocess"] = {"left": [{"scale": 0.5}]}
    here.config["quality"] = {"metrics": ["top1"]}
    report = ran_well(here)
    assert [spec["name"] for spec in report["source"]["inputs"]] == ["left", "right"]
    assert set(report["candidates"][0]["metrics"]) == {"top1"}


def test_a_text_model_with_a_tokenizer(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    letters = "abcdefgh "
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["e"]),
        helper.make_node("ReduceMean", ["e"], ["m"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["m", "head"], ["logits"]),
    ]
    weights = {
        "table": random.normal(size=(9, 16)).astype("f4"),
        "head": random.normal(size=(16, 9)).astype("f4"),
    }
    here = project(tmp_path)
    (tmp_path / "net.onnx").write_bytes(
        onnx_model(nodes, {"tokens": [1, 6]}, {"logits": [1, 9]}, weights, integer_inputs=("tokens",))
    )
    (tmp_path / "letters.json").write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    (tmp_path / "a.txt").write_text("".join(random.choice(list(letters), 60)))
    (tmp_path / "b.txt").write_text("".join(random.choice(list(letters), 60)))
    here.config["data"] = {
        "calibrate": "a.txt",
        "test": {"path": "b.txt", "limit": 4},
        "tokenizer": "letters.json",
        "truth": "next-token",
    }
    here.config["quality"] = {"metrics": ["perplexity", {"name": "bits_per_char", "scores": "logits"}]}
    report = ran_well(here)
    assert report["test"]["count"] == 4
    assert set(report["candidates"][0]["metrics"]) == {"perplexity", "bits_per_char"}


def test_module_function_data_and_a_metric_of_ones_own(tmp_path: Path) -> None:
    here = project(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n\n"
        "def rows(seed):\n"
        "    random = np.random.default_rng(seed)\n"
        "    for number in range(4):\n"
        "        yield {'image': random.normal(size=(3, 8, 8)).astype('float32')}, np.int64(number % 5)\n\n"
        "def calibrate():\n    yield from rows(1)\n\n"
        "def test():\n    yield from rows(2)\n\n"
        "def spread(outputs, truth):\n"
        "    assert len(truth) == 4\n"
        "    return {'spread': float(outputs['scores'].std()), 'each': outputs['scores'].max(axis=1)}\n"
    )
    here.config["data"] = {"calibrate": "mine:calibrate", "test": "mine:test"}
    here.config["quality"] = {"metrics": [{"path": "mine.py:spread", "better": "lower", "unit": "u"}]}
    here.config["budgets"] = {"max_drop": {"spread": 1.0, "cosine": 0.1}}
    report = ran_well(here)
    metrics = report["candidates"][1]["metrics"]
    assert set(metrics) == {"spread", "each"}
    assert metrics["spread"]["unit"] == "u"
    assert metrics["spread"]["better"] == "lower"


_SAVE = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import tensorflow as tf

class Net(tf.Module):
    def __init__(self):
        super().__init__()
        random = tf.random.Generator.from_seed(1)
        self.kernel = tf.Variable(random.normal((3, 3, 3, 8)))
        self.dense = tf.Variable(random.normal((8, 5)))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], name="image")])
    def classify(self, image):
        deep = tf.nn.relu(tf.nn.conv2d(image, self.kernel, 1, "SAME"))
        return {"scores": tf.matmul(tf.reduce_mean(deep, [1, 2]), self.dense)}

    @tf.function(input_signature=[tf.TensorSpec([1, 2], name="x")])
    def other(self, x):
        return {"y": x}

net = Net()
tf.saved_model.save(net, "net", signatures={"classify": net.classify, "other": net.other})
"""


def test_a_saved_model_with_named_signatures(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the tensorflow extra is not installed")
    here = project(tmp_path)
    script = [DEPLOY[0], "-c", _SAVE]
    subprocess.run(script, cwd=tmp_path, capture_output=True, check=True, timeout=120)
    for name, seed in (("calibrate.npz", 1), ("test.npz", 2)):
        np.savez(tmp_path / name, image=np.random.default_rng(seed).normal(size=(3, 8, 8, 3)).astype(np.float32))
    here.config["source"] = {"model": "net", "inputs": {"image": [1, 8, 8, 3]}}
    here.config["recipes"] = ["litert-float32", "litert-int8"]
    here.config["source"]["signature"] = "classify"
    report = ran_well(here)
    assert report["source"]["kind"] == "saved_model"
    assert [c["recipe"] for c in report["candidates"]] == ["litert-float32", "litert-int8"]
