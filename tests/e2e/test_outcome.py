"""What came of a recipe is said in every place: nothing is a silent success."""

from pathlib import Path

import numpy as np
from onnx import helper
from projects import Project, onnx_model, project


def widening(folder: Path) -> Project:
    """154 kB of weights in a ConvTranspose, which onnxruntime's dynamic quantization leaves alone and says nothing."""
    made = project(
        folder,
        recipes=["onnx-float32", "onnx-dynamic-int8", "onnx-mixed"],
        mixed={"ops": {"Conv.*|Convolution": "float32", "GlobalAveragePool": "int16x8"}},
    )
    nodes = [
        helper.make_node("ConvTranspose", ["image", "kernel"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["scores"]),
    ]
    weights = {"kernel": np.random.default_rng(0).normal(size=(3, 200, 8, 8)).astype(np.float32)}
    (folder / "net.onnx").write_bytes(onnx_model(nodes, {"image": ["n", 3, 8, 8]}, {"scores": ["n", 200]}, weights))
    return made


def test_nothing_quantized_is_a_verdict(tmp_path: Path) -> None:
    here = widening(tmp_path)
    ran = here.run()
    assert ran.status == 0, ran.err
    assert "of memory at most" in next(line for line in ran.err.splitlines() if line.startswith("export onnx: will"))
    report = here.report()
    by_recipe = {candidate["recipe"]: candidate for candidate in report["candidates"]}
    dynamic = by_recipe["onnx-dynamic-int8"]
    # It runs as float does, so a busy machine may make it look slower.
    assert (dynamic["verdict"], dynamic["codes"][0]) == ("fail", "not-quantized")
    assert set(dynamic["codes"]) <= {"not-quantized", "slower-than-float"}
    assert dynamic["suggestion"] == "try onnx-int8"
    assert dynamic["size_ratio"] > 0.9 > dynamic["promised_size_ratio"] == 0.25
    assert dynamic["targets"]["local"]["latency_ratio"] > 0
    assert "not-quantized" in ran.out
    said = "nothing was quantized, or next to nothing"
    for file in ("report.md", "report.html"):
        text = (here.folder / "deploy-out" / file).read_text()
        assert said in text
        assert "Promised and real" in text
        assert "try onnx-int8" in text.replace("\\", "")
    # Of a mix nothing is promised, so it cannot break that.
    mixed = by_recipe["onnx-mixed"]
    assert (mixed["codes"], mixed["promised_size_ratio"]) == ([], None) or mixed["codes"] == ["slower-than-float"]
    assert report["chosen"] in ("onnx-float32", "onnx-mixed")


def test_a_mix_without_rules_is_refused(tmp_path: Path) -> None:
    here = widening(tmp_path)
    del here.config["mixed"]
    ran = here.run()
    assert ran.status == 2
    assert "deploy.yaml has no `mixed`" in ran.err
    here.config["mixed"] = {"ops": {"Softmax": "int8"}}
    ran = here.run("--recipe", "onnx-mixed")
    assert "fits none of the model's 3 ops" in ran.err
