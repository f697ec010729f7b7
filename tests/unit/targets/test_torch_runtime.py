"""The agent's choice of an engine for quantized layers, from what the file asks for and what the device has."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from targets.agent.edge.torch_runtime import choose_engine
from targets.agent.edge.wire import Refused


def torch_with(*engines: str) -> Any:
    """As much of PyTorch as is asked: builds differ in the engines they have."""
    return SimpleNamespace(
        backends=SimpleNamespace(quantized=SimpleNamespace(supported_engines=engines, engine="none"))
    )


def model(folder: Path, engine: str) -> str:
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("archive/extra/signature.json", json.dumps({"inputs": [], "outputs": [], "engine": engine}))
    return str(folder / "model.pt")


@pytest.mark.parametrize(
    ("asked", "there", "chosen"),
    [
        ("x86", ("qnnpack", "onednn", "x86", "fbgemm"), "x86"),
        ("qnnpack", ("qnnpack", "onednn", "x86", "fbgemm"), "qnnpack"),
        ("x86", ("none", "qnnpack"), "qnnpack"),  # an ARM build given a file for PCs
        ("qnnpack", ("fbgemm",), "fbgemm"),
        ("", ("qnnpack",), ""),
    ],
)
def test_engine(tmp_path: Path, asked: str, there: tuple[str, ...], chosen: str) -> None:
    torch = torch_with(*there)
    assert choose_engine(torch, model(tmp_path, asked)) == chosen
    assert torch.backends.quantized.engine == (chosen or "none")


def test_no_engine(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no engine for quantized layers \(qnnpack\)"):
        choose_engine(torch_with("none"), model(tmp_path, "qnnpack"))


def test_a_torchscript_file_of_somebody_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(Refused, match="no TorchScript file with a signature"):
        choose_engine(torch_with("x86"), str(tmp_path / "model.pt"))
