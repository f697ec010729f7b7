"""The first layer that differs, found in few runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import dense_models
import numpy as np
import onnx
import onnxruntime
from hypothesis import given
from hypothesis import strategies as st
from old_runtimes import old_python
from onnx import numpy_helper
from projects import classifier

from pipeline.measuring.differing import AT_ONCE, Differing, first_differing, told, tolerated, where_different
from pipeline.measuring.subjects import How, Subject
from pipeline.quality.outputs import write_npz
from pipeline.runtimes.runtime import open_model
from pipeline.store import Store
from targets.agent.edge.answers import compare
from targets.device import connect
from targets.parts import Distance, Distances
from targets.records import BenchRequest, TargetSpec


@given(count=st.integers(1, 3000), share=st.floats(0, 1))
def test_the_first_of_thousands_in_four_runs(count: int, share: float) -> None:
    wrong, runs = int(share * count), 0
    seen: dict[str, Distance] = {}

    def look(keys: Sequence[str]) -> Mapping[str, Distance]:
        nonlocal runs
        runs += 1
        assert 1 <= len(keys) <= AT_ONCE
        found = {key: Distance(steps=float(int(key) >= wrong), finite=True) for key in keys}
        seen.update(found)
        return found

    place = first_differing(look, [str(number) for number in range(count)], 0.5, seen)
    assert place == (wrong if wrong < count else None)
    assert runs <= 4  # 9^4 > 3000


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_where_differences_come_and_go_the_one_before_is_alike(wrong: list[bool]) -> None:
    seen: dict[str, Distance] = {}

    def look(keys: Sequence[str]) -> Mapping[str, Distance]:
        seen.update({key: Distance(steps=2.0 * wrong[int(key)], finite=True) for key in keys})
        return seen

    place = first_differing(look, [str(number) for number in range(len(wrong))], 0.5, seen)
    if place is not None:
        assert wrong[place] and (place == 0 or not wrong[place - 1])


def subject(store: Store, folder: Path, model: Path, sample: Mapping[str, np.ndarray]) -> Subject:
    kind = "onnx" if model.suffix == ".onnx" else "tflite"
    write_npz(folder / "inputs", sample)
    write_npz(folder / "expected", open_model(kind, model).invoke(sample))
    blob, inputs, expected = (store.add_file(path) for path in (model, folder / "inputs", folder / "expected"))
    paths = {digest: store.path(digest) for digest in (blob, inputs, expected)}
    return Subject(name="net", format=kind, blob=blob, inputs=inputs, expected=expected, paths=paths)


def opened(folder: Path) -> Store:
    store = Store(folder / "state")
    with store.workspace():  # makes its folders
        return store


def compared(device: object, model: Subject, store: Store) -> Differing:
    request = model.request(TargetSpec(name="old", transport="local"), How())
    return where_different(device, model, request, 60.0, store, "old")  # type: ignore[arg-type]


def test_a_runtime_too_old_for_the_weights_is_wrong_from_the_first_layer(tmp_path: Path) -> None:
    """tflite-runtime 2.14 takes one weight scale where there is one for each channel, without a word."""
    store = opened(tmp_path)
    model = dense_models.quantized(tmp_path / "net.tflite", "dynamic_wi8_afp32")
    made = subject(store, tmp_path, model, dense_models.sample())
    spec = TargetSpec(name="old", transport="local", python=old_python("tflite-runtime"))
    with connect(spec, state=tmp_path) as device:
        found = compared(device, made, store)
    assert found.runtime.startswith("tflite-runtime 2.14.0")
    assert not tolerated(found) and found.first and found.first == found.first_beyond
    assert (found.first.number, found.first.op, found.first.name) == (0, "FULLY_CONNECTED", "dense0")
    assert "first to differ is FULLY_CONNECTED 'dense0'" in " ".join(told(found))
    with connect(TargetSpec(name="here", transport="local"), state=tmp_path) as device:
        alike = compared(device, made, store)
    assert tolerated(alike) and alike.first is None and alike.runs == 1


class WrongKernel:
    """A device that runs ONNX models as onnxruntime does, but for one node whose weights it reads wrongly."""

    def __init__(self, weights: str) -> None:
        self.weights, self.files = weights, dict[str, Path]()

    def push(self, path: Path, digest: str) -> bool:
        self.files[digest] = path
        return True

    def distances(self, request: BenchRequest, deadline_s: float) -> Distances:
        model = onnx.load(self.files[request.blob])
        for tensor in model.graph.initializer:
            if tensor.name == self.weights:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        values = session.run(None, dict(np.load(self.files[request.inputs])))
        expected = np.load(self.files[request.expected])
        outputs = []
        for number, value in enumerate(values):
            steps, finite = compare([(["y"], value)], {"y": expected[f"output{number}"]})
            outputs.append(Distance(steps=steps, finite=finite))
        return Distances(
            target="wrong", runtime="onnxruntime", runtime_version="0", delegate="", outputs=tuple(outputs)
        )


def test_the_node_with_the_fault_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(classifier())
    store = opened(tmp_path)
    sample = {"image": np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)}
    made = subject(store, tmp_path, tmp_path / "net.onnx", sample)
    for weights, op in (("kernel", "Conv"), ("dense", "MatMul")):
        found = compared(WrongKernel(weights), made, store)
        assert found.first and found.first.op == op
    assert compared(WrongKernel(""), made, store).first is None
