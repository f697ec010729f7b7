"""Calibration of both formats: every tensor is seen, and neither order nor the memory budget changes what is found."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exported_model import DATA, Exported
from onnx import TensorProto, helper, numpy_helper

from pipeline.calibration import OBSERVERS
from pipeline.calibration.engine import LEVELS, Observation, observe
from pipeline.calibration.observer import Observer, plan
from pipeline.calibration.sketch import merged
from pipeline.errors import InputError
from pipeline.plugins import load_plugin
from pipeline.runtimes.runtime import open_model
from pipeline.samples import open_samples

ROOT = Path(__file__).parents[2]


class Listed(list[Any]):
    """Samples in a list."""


def observer(exported: Exported, format: str, scratch: Path) -> Observer:
    made: Observer = load_plugin(OBSERVERS[format])(exported.model(format), scratch)
    return made


def observed(made: Observer, samples: Any, budget_bytes: float = 1e9) -> tuple[Observation, int]:
    planned = plan(made, LEVELS, int(budget_bytes))
    return observe(made, samples, planned, lambda done, total: None), len(planned.groups)


@pytest.mark.parametrize("format", ["tflite", "onnx"])
def test_budget_order_and_merging_change_nothing(exported: Exported, format: str, tmp_path: Path) -> None:
    made = observer(exported, format, tmp_path)
    samples = Listed(open_samples(DATA.spec("calibrate"), exported.prepared["inputs"], exported.folder))
    whole, passes = observed(made, samples)
    assert passes == 1
    assert len(whole.samples) == whole.samples_in() == len(samples) == 6
    sketches = whole.sketches()
    assert len(sketches) >= 5
    grouped, passes = observed(made, samples[::-1], budget_bytes=1)
    assert passes == len(made.tensors)
    assert grouped.sketches() == sketches
    parts = [observed(made, Listed(part))[0].sketches() for part in (samples[:2], samples[2:])]
    assert {name: merged(part[name] for part in parts) for name in sketches} == sketches
    twice, _ = observed(made, Listed([*samples, samples[0]]))
    assert twice.sketches() == sketches, "a duplicate counts once"
    # Half of the samples and the other half are all of them.
    halves = [whole.sketches(0, 1), whole.sketches(1)]
    assert {name: merged(half[name] for half in halves if half) for name in sketches} == sketches


def test_every_tensor_of_the_onnx_graph_has_its_true_range(exported: Exported, tmp_path: Path) -> None:
    """The same tensors taken from onnxruntime the long way, with all of them as outputs."""
    import onnxruntime

    model = onnx.load(str(exported.model("onnx")))
    produced = {name for node in model.graph.node for name in node.output}
    floats = [v for v in model.graph.value_info if v.name in produced and v.type.tensor_type.elem_type == 1]
    model.graph.output.extend(floats)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    samples = list(open_samples(DATA.spec("calibrate"), exported.prepared["inputs"], exported.folder))
    answers = [dict(zip(names, session.run(names, dict(sample.inputs)), strict=True)) for sample in samples]
    made = observer(exported, "onnx", tmp_path)
    sketches = observed(made, Listed(samples))[0].sketches()
    assert made.derived, "the model has a ReLU"
    assert set(sketches) == {*names, "image"}
    for name in names:
        values = np.concatenate([answer[name].reshape(-1) for answer in answers])
        assert (sketches[name].low, sketches[name].high) == pytest.approx((values.min(), values.max()), rel=1e-5)
        assert sketches[name].total == values.size


def test_every_op_of_the_tflite_graph_is_seen(exported: Exported, tmp_path: Path) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    graph = flatbuffer_utils.read_model(str(exported.model("tflite"))).subgraphs[0]
    wanted = {graph.tensors[i].name.decode() for op in graph.operators for i in op.outputs}
    wanted |= {graph.tensors[i].name.decode() for i in graph.inputs}
    made = observer(exported, "tflite", tmp_path)
    samples = Listed(open_samples(DATA.spec("calibrate"), exported.prepared["inputs"], exported.folder))
    sketches = observed(made, samples)[0].sketches()
    assert set(sketches) == wanted
    # The output's sketch is that of the unchanged model's answers.
    model = open_model("tflite", exported.model("tflite"))
    scores = np.concatenate([model.answer(sample.inputs)["scores"] for sample in samples])
    output = sketches[graph.tensors[graph.outputs[0]].name.decode()]
    assert (output.low, output.high, output.total) == (scores.min(), scores.max(), scores.size)


def wide_net(path: Path, layers: int = 12) -> int:
    """A chain of convolutions with activations of 8 MB each; returns the bytes of all of them."""
    shape = [1, 8, 512, 512]
    kernel = np.random.default_rng(0).normal(size=(8, 8, 1, 1)).astype(np.float32) / 3
    nodes = [helper.make_node("Conv", [f"t{n}", "k"], [f"t{n + 1}"]) for n in range(layers)]
    values = [helper.make_tensor_value_info(f"t{n}", TensorProto.FLOAT, shape) for n in range(layers + 1)]
    graph = helper.make_graph(nodes, "wide", values[:1], values[-1:], [numpy_helper.from_array(kernel, "k")])
    graph.value_info.extend(values[1:-1])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return (layers + 1) * 4 * int(np.prod(shape))


MEASURED = """
import json, re, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from pipeline.calibration.engine import LEVELS, observe
from pipeline.calibration.observer import plan
from pipeline.calibration.onnx import OnnxObserver

def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

made = OnnxObserver(Path(sys.argv[1]), Path(sys.argv[2]))
planned = plan(made, LEVELS, int(float(sys.argv[3])))
x = np.random.default_rng(0).normal(size=(1, 8, 512, 512)).astype(np.float32)
sample = SimpleNamespace(id="a", inputs={"t0": x}, digest="00" * 32)
before = memory("VmRSS")
found = observe(made, [sample], planned, lambda done, total: None)
sketches = {name: [one.low, one.high, one.total] for name, one in found.sketches().items()}
print(json.dumps([memory("VmHWM") - before, planned.peak_bytes, len(planned.groups), sketches]))
"""


def test_large_activations_stay_within_the_budget(tmp_path: Path) -> None:
    everything = wide_net(tmp_path / "wide.onnx")

    def measured(budget_bytes: float) -> tuple[int, int, int, Mapping[str, Any]]:
        command = [sys.executable, "-c", MEASURED, str(tmp_path / "wide.onnx"), str(tmp_path), str(budget_bytes)]
        return tuple(json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout))

    grown, predicted, passes, sketches = measured(1e9)
    assert passes == 1
    assert 0.8 * everything < grown < predicted
    budget_bytes = 70e6
    tight, predicted, passes, same = measured(budget_bytes)
    assert 2 <= passes <= 6
    assert tight < predicted <= budget_bytes < grown
    assert same == sketches


def test_a_model_that_computes_nan_names_the_sample_and_the_tensor(tmp_path: Path) -> None:
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")}
    graph = helper.make_graph([helper.make_node("Log", ["x"], ["y"])], "log", [values["x"]], [values["y"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "log.onnx").write_bytes(model.SerializeToString())
    np.save(tmp_path / "x.npy", np.float32([[1, 2, 3, 4], [1, -2, 3, 4]]))
    made = load_plugin(OBSERVERS["onnx"])(tmp_path / "log.onnx", tmp_path)
    from pipeline.samples import DataSpec
    from targets.records import TensorSpec

    samples = open_samples(DataSpec(path="x.npy"), (TensorSpec(name="x", shape=(1, 4), dtype="float32"),), tmp_path)
    with pytest.raises(InputError, match=r"x\.npy\[1\]: the float model computes NaN or infinity in tensor 'y'"):
        observed(made, samples)
