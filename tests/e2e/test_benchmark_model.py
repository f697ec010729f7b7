"""The runner `benchmark_model` on models that really run, by a stand-in for TensorFlow's program: see there."""

import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from int8_models import int8_tflite_bundle
from shells import TransportShell
from tiny_models import Bundle, onnx_bundle, tflite_bundle

from targets.errors import AgentFailed, InputError, NoRuntime
from targets.records import Absent, TargetSpec
from targets.runners import load_runner
from targets.runners.benchmark_model import BenchmarkModelRunner, parse, parse_profile
from targets.transports.local import LocalTransport
from targets.wire import decode_measurement, decode_profile

_STANDIN = Path(__file__).parents[1] / "standin_benchmark_model.py"


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[TransportShell]:
    transport = LocalTransport(TargetSpec(name="here"), tmp_path)
    transport.open()
    yield TransportShell(transport, platform.machine(), str(tmp_path / "device"))
    transport.close()


@pytest.fixture
def spec(tmp_path: Path) -> TargetSpec:
    return TargetSpec(name="ph", runner="benchmark_model", libraries=str(program(tmp_path, "")))


def program(folder: Path, broken: str) -> Path:
    path = folder / f"benchmark_model{broken}"
    path.write_text(f"#!/bin/sh\nBROKEN={broken} exec '{sys.executable}' '{_STANDIN}' \"$@\"\n")
    path.chmod(0o755)
    return path


def files_of(bundle: Bundle) -> dict[str, Path]:
    return {"blob": bundle.model, "inputs": bundle.inputs, "expected": bundle.expected}


def bench(shell: TransportShell, spec: TargetSpec, bundle: Bundle, **settings: Any) -> Mapping[str, Any]:
    return BenchmarkModelRunner(spec).bench(shell, bundle.request(**settings), files_of(bundle), 60.0)


@pytest.mark.parametrize("make", [tflite_bundle, int8_tflite_bundle])
def test_it_measures_and_compares_the_answer(
    shell: TransportShell, spec: TargetSpec, tmp_path: Path, make: Any
) -> None:
    bundle = make(tmp_path / "model")
    assert load_runner("benchmark_model") is BenchmarkModelRunner
    result = bench(shell, spec, bundle, warm_max_samples=3)
    found = decode_measurement("ph", bundle.request(), result, Absent(reason="not asked"))
    assert found.answer.max_steps == 0 and found.answer.finite and found.delegate == "XNNPACK"
    assert len(found.warm_ns) == len(found.warmup_ns) == 3 and all(0 < ns < 1e9 for ns in found.warm_ns)
    assert found.load_ns > 0 and found.first_ns > 0 and found.peak_rss_bytes == 12.5 * (1 << 20)
    assert found.conditions["samples"].startswith("each the mean of ")
    assert float(found.conditions["fastest_run_ms"]) <= float(found.conditions["slowest_run_ms"])
    asked = [command for command in shell.commands if "--num_threads=1" in command]
    assert len(asked) == 4 and sum("--report_peak_memory_footprint=true" in command for command in asked) == 1


def test_its_profile_is_read(shell: TransportShell, spec: TargetSpec, tmp_path: Path) -> None:
    bundle = tflite_bundle(tmp_path / "model", remainders=2)
    wire = BenchmarkModelRunner(spec).profile(shell, bundle.request(), files_of(bundle), 60.0)
    found = decode_profile("ph", bundle.request(), dict(wire))
    assert [op.op for op in found.ops] == ["ADD", "FLOOR_MOD", "FLOOR_MOD"] and found.runs >= 10
    assert all(op.dtypes == ("float32",) and isinstance(op.us, float) for op in found.ops)


def test_rows_of_a_delegate_and_names_with_commas_are_read() -> None:
    text = (
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n==== Run Order ====\n"
        "node type, first, avg_ms, %, cdf%, mem KB, times called, name\n"
        "QUANTIZE, 0.199, 0.203, 1.3%, 1.3%, 0, 1, [tfl.quantize\tagain]:0\n"
        "Convolution (NHWC; QC8) IGEMM, 0.398, 0.407, 2.7%, 4%, 0, 1, Delegate/Convolution (NHWC\t QC8) IGEMM:0\n\n"
    )
    first, second = parse_profile(text)
    assert first == {"name": "tfl.quantize,again", "op": "QUANTIZE", "where": "", "us": 203.0}
    assert (second["where"], second["us"]) == ("XNNPACK", 407.0)
    with pytest.raises(AgentFailed, match="no profile"):
        parse_profile("Profiling Info for Benchmark Initialization:\n")


def test_a_wrong_answer_is_seen(shell: TransportShell, spec: TargetSpec, tmp_path: Path) -> None:
    found = bench(shell, spec, tflite_bundle(tmp_path / "model", wrong_by=0.5), warm_max_samples=1, cpus=(0,))
    assert found["max_steps"] > 10
    assert any(command[:2] == ["taskset", "1"] for command in shell.commands)


@pytest.mark.parametrize(
    ("broken", "kind", "says"),
    [
        ("old", NoRuntime, "wrote no outputs"),
        ("op", AgentFailed, "ended with 1\nERROR: Encountered unresolved custom op: Nonsense."),
        ("words", AgentFailed, "cannot be read: no line of timings"),
    ],
)
def test_each_way_of_failing_is_told(
    shell: TransportShell, spec: TargetSpec, tmp_path: Path, broken: str, kind: type[Exception], says: str
) -> None:
    wrong = replace(spec, libraries=str(program(tmp_path, broken)))
    with pytest.raises(kind) as caught:
        bench(shell, wrong, tflite_bundle(tmp_path / "model"))
    assert says in str(caught.value)


def test_what_cannot_be_is_refused_before_anything_is_sent(
    shell: TransportShell, spec: TargetSpec, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="needs the path of that program"):
        BenchmarkModelRunner(replace(spec, libraries=""))
    other = tmp_path / "for_another"
    other.write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\3\0" + (22).to_bytes(2, "little") + bytes(100))
    for program_, says in ((tmp_path / "none", "cannot be read"), (other, "is not for")):
        with pytest.raises(InputError, match=says):
            BenchmarkModelRunner(replace(spec, libraries=str(program_))).runtimes(shell)
    with pytest.raises(NoRuntime, match=r"runs \.tflite models only"):
        bench(shell, spec, onnx_bundle(tmp_path / "model"))
    with pytest.raises(InputError, match="no pauses"):
        bench(shell, spec, tflite_bundle(tmp_path / "paused"), pause_s=1.0)


def test_runs_that_were_all_alike_are_read() -> None:
    told = parse(
        "INFO: count=0\n\nINFO: count=7 curr=41(all same)\n\n"
        "INFO: Inference timings in us: Init: 5, First inference: 0, Warmup (avg): -nan, Inference (avg): 41\n"
    )
    assert (told.runs, told.mean_us, told.fastest_us, told.slowest_us, told.peak_mb) == (7, 41.0, 41.0, 41.0, None)
    assert not told.xnnpack
