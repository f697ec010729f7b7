"""The time of each op in LiteRT, by the profiler of its C library, on this machine."""

import os
import signal
from pathlib import Path

import pytest
from int8_models import int8_tflite_bundle
from old_runtimes import old_python
from tiny_models import Bundle, digest_of, tflite_bundle

from targets.agent.edge.litert_profile import NoTimes, forked, xnnpack_dtype
from targets.agent.edge.wire import Json
from targets.device import connect
from targets.records import Absent, Profile, TargetSpec


def profiled(bundle: Bundle, state: Path, python: str = "") -> Profile:
    with connect(TargetSpec(name="here", transport="local", python=python), state=state) as device:
        for path in bundle.files:
            device.push(path, digest_of(path))
        return device.profile(bundle.request(), 60)


def test_each_op_has_its_time_and_says_who_computes_it(tmp_path: Path) -> None:
    found = profiled(tflite_bundle(tmp_path / "model", remainders=2), tmp_path)
    assert [(op.op, op.dtypes, op.where) for op in found.ops] == [
        ("Add", (), "XNNPACK"), ("FLOOR_MOD", ("float32",), "built-in"), ("FLOOR_MOD", ("float32",), "built-in"),
    ]  # fmt: skip
    assert [op.name for op in found.ops[1:]] == ["between_2", "inner_y:0"], "as the model's own tensors are called"
    assert found.delegate == "XNNPACK" and found.runs == 10
    assert all(isinstance(op.us, float) for op in found.ops)


def test_a_fully_connected_layer_of_int8_is_xnnpacks_own(tmp_path: Path) -> None:
    (_, op) = profiled(int8_tflite_bundle(tmp_path / "model"), tmp_path).ops
    assert (op.op, op.dtypes, op.where) == ("Fully Connected", ("int8",), "XNNPACK")


def test_a_runtime_that_tells_no_times_says_so_and_lists_the_ops(tmp_path: Path) -> None:
    found = profiled(tflite_bundle(tmp_path / "model"), tmp_path, old_python("tflite-runtime"))
    (op,) = found.ops
    assert (found.runtime, op.op, op.dtypes) == ("tflite-runtime", "ADD", ("float32",))
    assert isinstance(op.us, Absent) and "ai-edge-litert 2.1.1 and later do" in op.us.reason


def test_a_library_that_ends_the_process_costs_the_times_alone() -> None:
    def crash() -> Json:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    with pytest.raises(NoTimes, match="signal 9"):
        forked(crash)
    assert forked(lambda: {"ops": []}) == {"ops": []}


@pytest.mark.parametrize(
    ("types", "dtype"),
    [
        ("NHWC QS8 QC8W", "int8"), ("NHWC QC8", "int8"), ("NC QU8", "uint8"), ("NC F32 QC8W", "float32"),
        ("NC QD8 F32 QC8W", "int8, dynamic"), ("NC PF32", "float32"), ("NHWC F16", "float16"), ("ND X32", ""),
    ],
)  # fmt: skip
def test_names_of_types(types: str, dtype: str) -> None:
    assert xnnpack_dtype(types.split()) == dtype
