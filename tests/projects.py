"""Small projects on disk, and `deploy` run on them as a user does: as a process."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DEPLOY = [sys.executable, "-P", "-m", "pipeline.cli.main"]
FORTY_MS = "40 ms"  # of warm samples: latency is not what these tests are about
RECIPES = ["onnx-float32", "onnx-int8"]


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str

    @property
    def kept(self) -> list[str]:
        return [line.removesuffix(": kept") for line in self.err.splitlines() if line.endswith(": kept")]

    @property
    def done(self) -> list[str]:
        return [line.partition(": ")[0] for line in self.err.splitlines() if ": done in " in line]


@dataclass
class Project:
    """A folder with `deploy.yaml`, which is rewritten from `config` before every run."""

    folder: Path
    config: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        (self.folder / "deploy.yaml").write_text(json.dumps(self.config, indent=1))  # JSON is YAML

    def command(self, *arguments: str) -> dict[str, Any]:
        """What `subprocess` needs to run `deploy run` here."""
        self.write()
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DEPLOY_")}
        return {
            "args": [*DEPLOY, "run", *arguments],
            "cwd": self.folder,
            "env": {**environment, **self.env},
            "text": True,
            "stdin": subprocess.DEVNULL,
        }

    def run(self, *arguments: str, timeout_s: float = 120.0) -> Ran:
        done = subprocess.run(**self.command(*arguments), capture_output=True, timeout=timeout_s, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "deploy-out" / "report.json").read_text())
        return found

    @property
    def state(self) -> Path:
        return self.folder / ".deploy"

    def records(self, stage: str = "*") -> list[Path]:
        return sorted(self.state.glob(f"records/{stage}/*.json"))


def project(folder: Path, **changes: Any) -> Project:
    """A classifier of 700 bytes with samples; `changes` replace whole sections of its deploy.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.onnx").write_bytes(classifier())
    samples(folder / "calibrate.npz", 4, seed=1)
    samples(folder / "test.npz", 3, seed=2)
    config: dict[str, Any] = {
        "source": {"model": "net.onnx"},
        "data": {"calibrate": "calibrate.npz", "test": "test.npz"},
        "recipes": RECIPES,
        "measure": {"warm": FORTY_MS},
    }
    return Project(folder, {**config, **changes})


def samples(path: Path, count: int, *, seed: int, **more: np.ndarray[Any, Any]) -> None:
    random = np.random.default_rng(seed)
    np.savez(path, image=random.normal(size=(count, 3, 8, 8)).astype(np.float32), **more)


def classifier(*, weight: float | None = None) -> bytes:
    """Convolution, pooling, and 5 classes, with a free batch axis; `weight` replaces one weight."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(4, 3, 3, 3)).astype(np.float32)
    if weight is not None:
        kernel[1, 2, 0, 0] = weight
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "dense"], ["scores"]),
    ]
    weights = {"kernel": kernel, "dense": random.normal(size=(4, 5)).astype(np.float32)}
    return onnx_model(nodes, {"image": ["n", 3, 8, 8]}, {"scores": ["n", 5]}, weights)


def onnx_model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, list[Any]],
    outputs: Mapping[str, list[Any]],
    weights: Mapping[str, np.ndarray[Any, Any]],
    integer_inputs: tuple[str, ...] = (),
) -> bytes:
    def value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
        kind = TensorProto.INT64 if name in integer_inputs else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        nodes,
        "net",
        [value(name, shape) for name, shape in inputs.items()],
        [value(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def one_error(ran: Ran) -> str:
    """The one error on standard error with its hint, after the lines of finished steps; no traceback, no warning."""
    lines = ran.err.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    assert len(starts) == 1, ran.err
    assert "Traceback" not in ran.err, ran.err
    before = [line for line in lines[: starts[0]] if ": will take about " not in line]
    assert all(line.rpartition(": ")[2] == "kept" or ": done in " in line for line in before), ran.err
    assert any(line.startswith("  hint: ") for line in lines[starts[0] :]), ran.err
    return "\n".join(lines[starts[0] :])


def distribution(folder: Path, name: str, entry_points: str, modules: dict[str, str]) -> None:
    """An installed package, as far as Python's metadata can tell."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
