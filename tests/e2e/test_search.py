"""`recipes: [auto]` through the command line: what it finds, keeps, says, and refuses to begin."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from projects import DEPLOY, Project, one_error, onnx_model, project, samples


def spoiled() -> bytes:
    """Six convolutions, of which the third makes one channel a thousand times as large as the others.

    The fourth takes that back, so float does not mind; in int8, with one scale for the tensor, the others are lost.
    """
    random = np.random.default_rng(3)
    weights = {f"w{i}": random.normal(0, 0.3, (8, 3 if i == 0 else 8, 3, 3)).astype(np.float32) for i in range(6)}
    weights["w2"][5] *= 1000
    weights["w3"][:, 5] /= 1000
    weights["dense"] = random.normal(size=(8, 5)).astype(np.float32)
    nodes, tensor = [], "image"
    for i in range(6):
        nodes.append(helper.make_node("Conv", [tensor, f"w{i}"], [f"c{i}"], name=f"conv{i}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"))
        tensor = f"r{i}"
    nodes += [
        helper.make_node("GlobalAveragePool", [tensor], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("MatMul", ["f", "dense"], ["scores"], name="dense_"),
    ]
    return onnx_model(nodes, {"image": ["n", 3, 8, 8]}, {"scores": ["n", 5]}, weights)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = project(
        tmp_path_factory.mktemp("searched"),
        recipes=["onnx-float32", "onnx-int8", "auto"],
        budgets={"max_drop": {"cosine": 0.003}},
        measure={"warm": "20 ms"},
        search={"evaluations": 24},
    )
    (made.folder / "net.onnx").write_bytes(spoiled())
    made.config["data"]["test"] = "many.npz"
    images = np.random.default_rng(5).normal(size=(40, 3, 8, 8)).astype(np.float32)
    np.savez(made.folder / "many.npz", image=images)
    ran = made.run()
    assert ran.status == 0, ran.err
    assert "sensitivity onnx" in ran.done and "search onnx-auto" in ran.done
    return made


def candidate(report: Mapping[str, Any], recipe: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in report["candidates"] if c["recipe"] == recipe)
    return found


def test_it_finds_what_spoils_int8_and_keeps_the_rest(searched: Project) -> None:
    report = searched.report()
    assert candidate(report, "onnx-int8")["verdict"] == "fail"
    auto = candidate(report, "onnx-auto")
    assert auto["verdict"] == "pass"
    [search] = report["searches"]
    assert search["recipe"] == "onnx-auto"
    # The block behind the large channel, or the one that makes it, loses most.
    assert search["sensitivity"][0]["block"] in ("conv2", "conv3")
    assert sum(error["loss_share"] for error in search["sensitivity"]) == pytest.approx(1, abs=0.05)
    by_name = {trial["name"]: trial for trial in search["trials"]}
    assert len(by_name) == len(search["trials"]) <= 24
    assert by_name["int8"]["verdict"] == "misses"
    chosen = by_name[search["chosen"]]
    assert (chosen["verdict"], chosen["samples"]) == ("meets", 20), "half of the 40 test samples"
    assert chosen["drops"][0]["high"] <= 0.003
    # On so small a net float may well be the fastest, and then it is taken; but what int8 can be kept was found.
    assert any(trial["verdict"] == "meets" and 0.4 < trial["int8_share"] < 1 for trial in search["trials"])
    assert chosen["latency_ms"] <= 1.05 * by_name["float32"]["latency_ms"]
    text = " ".join(search["findings"])
    assert "int8 for all ops misses the target" in text and "QAT" in text
    assert "judged on 20 of 40 test samples" in text


def test_the_reports_show_it(searched: Project) -> None:
    out = searched.folder / "deploy-out"
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    for shown in (page, text):
        assert "How onnx-auto was chosen" in shown
        assert "What int8 loses, by block" in shown
        assert "(Pareto)" in shown
    assert 'data-group="search"' in page


def test_a_second_run_searches_no_more_and_another_target_value_does(searched: Project) -> None:
    again = searched.run()
    assert again.status == 0, again.err
    assert "sensitivity onnx" in again.kept and "search onnx-auto" in again.kept
    changed = Project(searched.folder, json.loads(json.dumps(searched.config)))
    changed.config["budgets"]["max_drop"]["cosine"] = 0.9
    planned = json.loads(changed.run("--dry-run", "--json").out)
    assert not any(row["kept"] for row in planned if row["name"] == "onnx-auto")
    redone = [f"{row['stage']} {row['name']}" for row in planned if not row["kept"]]
    assert redone[:2] == ["search onnx-auto", "quantize onnx-auto"]


def test_the_ranking_alone(searched: Project) -> None:
    ran = subprocess.run(
        [*DEPLOY, "sensitivity", "--json"],
        cwd=searched.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "sensitivity onnx: kept" in ran.stderr, "a run has ranked them already"
    told = json.loads(ran.stdout)
    ranking, on_task = told["blocks"], told["on_task"]
    assert ranking[0]["block"] in ("conv2", "conv3")
    assert ranking[0]["fix"] == "float32"
    assert sum(error["loss_share"] for error in ranking) == pytest.approx(1)
    # Two blocks spoil all, so that mending one of them alone must not be said to help.
    assert [one["block"] for one in on_task["blocks"]] == [error["block"] for error in ranking[:3]]
    [together] = on_task["int8"]
    assert together["metric"] == "cosine" and 0.5 < together["low"] <= together["value"] <= together["high"]
    assert all(one["losses"][0]["value"] > 0.5 for one in on_task["blocks"])


def test_for_size_a_mix_is_taken(searched: Project, tmp_path: Path) -> None:
    shutil.copytree(searched.folder, tmp_path / "copy")
    small = Project(tmp_path / "copy", {**searched.config, "choose": "size"})
    ran = small.run()
    assert ran.status == 0, ran.err
    report = small.report()
    [search] = report["searches"]
    auto = candidate(report, "onnx-auto")
    assert search["cost"] == "size" and all(trial["latency_ms"] is None for trial in search["trials"])
    assert auto["verdict"] == "pass"
    assert auto["size_bytes"] < candidate(report, "onnx-float32")["size_bytes"]
    assert sum(auto["ops_quantized"].values()) > 0


def test_a_search_without_a_target_is_refused_before_anything_runs(tmp_path: Path) -> None:
    ran = project(tmp_path, recipes=["auto"]).run()
    assert ran.status == 2
    assert "budgets: {max_drop" in one_error(ran)


def test_a_repair_says_what_it_gained(tmp_path: Path) -> None:
    made = project(tmp_path, recipes=["onnx-int8", "onnx-int8-bias", "onnx-int8-cle"])
    (tmp_path / "net.onnx").write_bytes(spoiled())
    ran = made.run()
    assert {"export onnx-cle", "calibrate onnx-cle"} <= set(ran.done), ran.err
    report = made.report()
    plain, bias, leveled = (candidate(report, name) for name in made.config["recipes"])
    assert bias["findings"][0].startswith("bias gained") and "over onnx-int8" in bias["findings"][0]
    # Equalisation divides the large channel by what the next layer takes it times: here it mends all of it.
    assert leveled["fidelity"]["sqnr_db"] > plain["fidelity"]["sqnr_db"] + 10
    assert leveled["size_bytes"] <= plain["size_bytes"] + 1000  # for the names of new constants, not their values

    # Sketches of the model as exported count for that one only, and the others' recipes go on without.
    shutil.copy(tmp_path / "deploy-out" / "calibration" / "onnx.sketch", tmp_path / "old.sketch")
    samples(tmp_path / "calibrate.npz", 4, seed=5)
    made.config["calibration"] = {"merge": ["old.sketch"]}
    ran = made.run()
    assert ran.status == 0, ran.err
    plain, bias, leveled = (candidate(made.report(), name) for name in made.config["recipes"])
    assert made.report()["calibrations"]["onnx"]["samples"] == 8
    assert "5 pairs of layers equalised" in leveled["findings"]
    assert any(said.startswith("calibration.merge is not in these ranges") for said in leveled["findings"])
    assert not any("calibration.merge" in said for said in plain["findings"])
