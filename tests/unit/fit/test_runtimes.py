"""What old runtimes say of themselves against the table, and whether one that is installed lives."""

import json
import sys
import venv
from pathlib import Path

import pytest
from old_runtimes import VERSIONS, old_python

from pipeline.fit.limits import place
from targets.device import connect
from targets.records import TargetSpec

_ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("runtime", VERSIONS)
def test_the_table_has_what_the_release_says(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(_ROOT / "docs")
    import runtime_limits

    said = runtime_limits.ask(old_python(runtime), runtime)
    table = json.loads((_ROOT / "pipeline" / "fit" / "limits.json").read_text(encoding="utf-8"))
    assert said == table[runtime][VERSIONS[runtime]]


def test_wheels_that_pip_has_are_in_the_table() -> None:
    table = json.loads((_ROOT / "pipeline" / "fit" / "wheels.json").read_text(encoding="utf-8"))
    assert table["tflite-runtime"]["2.14.0"]["cp311-armv7l"] == [2, 34]
    assert not any("armv7l" in tags for built in table["ai-edge-litert"].values() for tags in built)


def test_litert_comes_after_tensorflow_lite() -> None:
    old, new = place("litert", "2.14.0", tensorflow=True), place("litert", "1.0.1", tensorflow=False)
    assert old and new and old < new


@pytest.mark.parametrize(
    ("body", "trouble"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "importing it ends with SIGILL"),
        ("raise ImportError('numpy.core.multiarray failed to import')", "numpy.core.multiarray failed to import"),
        ("", ""),
    ],
    ids=["illegal instruction", "another numpy", "well"],
)
def test_a_runtime_is_tried_in_a_process_of_its_own(body: str, trouble: str, tmp_path: Path) -> None:
    """The device's agent survives what its runtime does not."""
    venv.create(tmp_path / "env", symlinks=True)
    [packages] = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (packages / "onnxruntime").mkdir()
    (packages / "onnxruntime" / "__init__.py").write_text(body + "\n")
    (packages / "onnxruntime-1.21.0.dist-info").mkdir()
    (packages / "onnxruntime-1.21.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime\nVersion: 1.21.0\n"
    )
    spec = TargetSpec(name="here", python=str(tmp_path / "env" / "bin" / "python"))
    with connect(spec, state=tmp_path) as device:
        tried = device.try_runtimes()
        facts = device.facts()
    assert tried["onnxruntime"].endswith(trouble) and bool(tried["onnxruntime"]) == bool(trouble)
    assert facts.runtimes == {"onnxruntime": "1.21.0"}
    assert (facts.numpy, facts.page_bytes) == ("", 4096 if sys.platform == "linux" else facts.page_bytes)
