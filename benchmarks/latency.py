"""Our latencies beside onnxruntime's own script: the same, calmer from run to run, and what our loop costs.

The script is the one in its wheel (`onnxruntime.tools.onnxruntime_test`), which tells a mean. Each run is a process of
its own, in turns, with as many threads as there are cores.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.pairs import Row, absent, at_most, in_turns, main
from targets.agent.edge.child import timer
from targets.device import Device, connect
from targets.records import BenchRequest, TargetSpec

_SPIN_NS = 50_000
_OURS_WITHIN, _CV_SHARE, _LOOP_BAR_US = 0.02, 0.5, 2.0
_RUNS = 300  # of each peer's process; its mean needs as many as ours has


def rows(pairs: int) -> Iterator[Row]:
    yield _loop_row()
    with tempfile.TemporaryDirectory() as name, connect(TargetSpec(name="local"), state=Path(name)) as device:
        folder = Path(name)
        yield from _onnx_rows(device, folder, pairs)


class _Spin:
    """A model of 50 us that knows how long it really ran."""

    def __init__(self) -> None:
        self.ran_ns = 0

    def reset(self) -> None:
        pass

    def run(self) -> None:
        start = time.perf_counter_ns()
        while (ran_ns := time.perf_counter_ns() - start) < _SPIN_NS:
            pass
        self.ran_ns = ran_ns


def _loop_row() -> Row:
    """What the agent's own loop adds to the latency of a call."""
    model = _Spin()
    timed = timer(model)
    added = [timed() - model.ran_ns for _ in range(5000)]
    return at_most("the agent's loop around a model of 50 us", median(added) / 1000, "us", _LOOP_BAR_US)


def _onnx_rows(device: Device, folder: Path, pairs: int) -> Iterator[Row]:
    files = _files(folder)
    digests = {role: hashlib.sha256(path.read_bytes()).hexdigest() for role, path in files.items()}
    for role, path in files.items():
        device.push(path, digests[role])
    request = BenchRequest(
        **digests, format="onnx", threads=_cores(), warm_max_s=1.0, warm_min_samples=3, warm_max_samples=2000
    )
    means: list[float] = []

    def ours() -> float:
        warm_ns = device.bench(request, 120).warm_ns
        means.append(mean(warm_ns) / 1e6)
        return median(warm_ns) / 1e6

    sides = {"ours": ours, "theirs": lambda: _onnxruntime_ms(files["blob"])}
    try:
        found = in_turns(sides, pairs)
    except RuntimeError as fault:
        yield absent("warm latency beside onnxruntime's own script", "", str(fault))
        return
    yield from _compared("onnxruntime's own script", found, means)


def _compared(peer: str, found: Mapping[str, list[float]], means: list[float]) -> Iterator[Row]:
    """Like beside like: the script tells a mean, so our mean is held to it; the spread is of what each tells."""
    off = abs(median(means) / median(found["theirs"]) - 1)
    yield at_most(f"our warm mean off {peer}'s", off, "", _OURS_WITHIN)
    ours, theirs = (stdev(found[side]) / mean(found[side]) for side in ("ours", "theirs"))
    yield at_most(f"run-to-run CV, beside {peer}'s", ours, "", _CV_SHARE * theirs, peer=theirs)


def _onnxruntime_ms(model: Path) -> float:
    """The mean that the script prints. It takes no number of threads: it has as many as there are cores, as ours."""
    command = [sys.executable, "-m", "onnxruntime.tools.onnxruntime_test", str(model)]
    done = subprocess.run([*command, str(_RUNS)], capture_output=True, text=True, check=False)
    told = re.search(r"avg latency: ([\d.]+) ms", done.stdout)
    if told is None:
        raise RuntimeError(f"it says no latency: {done.stderr[-200:]}")
    return float(told[1])


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _files(folder: Path) -> dict[str, Path]:
    """Three convolutions of some milliseconds, a sample, and its answer."""
    random = np.random.default_rng(0)
    kernels = [random.normal(size=size).astype(np.float32) for size in ((32, 3, 3, 3), (32, 32, 3, 3), (32, 32, 3, 3))]
    nodes = [
        helper.make_node("Conv", [f"t{n}", f"k{n}"], [f"t{n + 1}"], pads=[1, 1, 1, 1]) for n in range(len(kernels))
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 96, 96])
        for name, channels in (("t0", 3), ("t3", 32))
    ]
    weights = [numpy_helper.from_array(kernel, f"k{n}") for n, kernel in enumerate(kernels)]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    paths = {"blob": folder / "net.onnx", "inputs": folder / "inputs.npz", "expected": folder / "expected.npz"}
    paths["blob"].write_bytes(model.SerializeToString())
    x = random.normal(size=(1, 3, 96, 96)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(paths["blob"]), providers=["CPUExecutionProvider"])
    np.savez(paths["inputs"], t0=x)
    np.savez(paths["expected"], t3=session.run(None, {"t0": x})[0])
    return paths


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=10)
