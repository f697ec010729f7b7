"""Every number that measuring is held to: energy, decisions, latency beside the runtimes' own benchmarks, time.

Energy: five windows of ten seconds of inference under each board's own power sensor, against the joules that the device
lab's model of the board really spent in them (its log, which the board cannot see). The rest is of
`benchmarks.decisions` and `benchmarks.latency`, which run alone as well.
"""

import hashlib
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks import decisions, latency
from benchmarks.pairs import Row, absent, at_most, main
from pipeline.quality.energy import LEAST_WINDOW_S, LEAST_WINDOWS, energy_per_inference
from targets.device import connect
from targets.errors import DeployError
from targets.lab.lab import Wanted, down, up
from targets.lab.power.truth import read_truth
from targets.records import Absent, BenchRequest, EnergyPlan, Measurement, PowerTrace, TargetSpec

_GROSS_BAR, _NET_BAR = 1.0, 3.0  # percent
_BOARDS = ("rpi4", "jetson", "rpi5")
_METERS = {"rpi5": "rpi5-board"}  # its rails alone are not what the lab's truth is of
_SETTLED_S = 0.3  # the log has a line every 0.1 s


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What one inference really took: medians over the busy windows."""

    gross_j: float
    net_j: float


def true_energy(log: Path, measured: Measurement) -> Truth:
    """From a device's log of truth, for the windows of a measurement; both are by the machine's monotonic clock."""
    trace = measured.energy
    assert isinstance(trace, PowerTrace)
    lines = list(read_truth(log))
    moments_ns = np.array([line.t_monotonic_ns for line in lines], dtype=np.float64)
    energies_j = np.array([line.energy_j for line in lines])

    def mean_w(start_ns: int, end_ns: int) -> float:
        joules = np.diff(np.interp([start_ns, end_ns], moments_ns, energies_j))[0]
        return float(joules / (end_ns - start_ns) * 1e9)

    busy = [window for window in trace.windows if window.kind == "busy"]
    idle = [window for window in trace.windows if window.kind == "idle"]
    levels = np.interp(
        [(w.start_ns + w.end_ns) / 2 for w in busy],
        [(w.start_ns + w.end_ns) / 2 for w in idle],
        [mean_w(w.start_ns, w.end_ns) for w in idle],
    )
    gross, net = [], []
    for window, idle_w in zip(busy, levels, strict=True):
        seconds = (window.end_ns - window.start_ns) * 1e-9 / window.runs
        power_w = mean_w(window.start_ns, window.end_ns)
        gross.append(power_w * seconds)
        net.append((power_w - float(idle_w)) * seconds)
    return Truth(gross_j=float(np.median(gross)), net_j=float(np.median(net)))


def rows(pairs: int) -> Iterator[Row]:
    yield from decisions.rows(pairs)
    yield from latency.rows(2 * pairs)
    for board in _BOARDS:
        yield from _energy_rows(board, max(pairs, LEAST_WINDOWS))


def _energy_rows(board: str, windows: int) -> Iterator[Row]:
    names = [f"energy of {board}, {kind}" for kind in ("gross", "net")]
    try:
        found, truth = _measured(board, windows)
    except DeployError as fault:
        yield from (absent(name, "%", fault.message) for name in names)
        return
    energy = energy_per_inference(found)
    if isinstance(energy, Absent):
        yield from (absent(name, "%", energy.reason) for name in names)
        return
    spread = f"{energy.meter}, {energy.inferences} inferences, {energy.missing_samples} samples missing"
    print(f"  {board}: {spread}; ± {energy.gross_error_j / energy.gross_j:.1%} gross by itself", file=sys.stderr)
    yield at_most(names[0], 100 * abs(energy.gross_j / truth.gross_j - 1), "%", _GROSS_BAR)
    if isinstance(energy.net_j, Absent):
        yield absent(names[1], "%", energy.net_j.reason)
    else:
        yield at_most(names[1], 100 * abs(energy.net_j / truth.net_j - 1), "%", _NET_BAR)


def _measured(board: str, windows: int) -> tuple[Measurement, Truth]:
    name = f"bench-{secrets.token_hex(4)}"
    wanted = Wanted(counts={"arm64": 1}, profiles=(board,))
    with tempfile.TemporaryDirectory() as folder:
        lab = up(name, wanted)
        try:
            (spec,) = lab.target_specs()
            plan = EnergyPlan(windows=windows, window_s=LEAST_WINDOW_S, idle_s=0.4 * LEAST_WINDOW_S)
            found = _bench(replace(spec, meter=_METERS.get(board, "")), Path(folder), plan)
            time.sleep(_SETTLED_S)
            return found, true_energy(lab.folder / spec.name / "power.jsonl", found)
        finally:
            down(name)


def _bench(spec: TargetSpec, folder: Path, plan: EnergyPlan) -> Measurement:
    paths = {role: folder / role for role in ("blob", "inputs", "expected")}
    sample = np.ones((1, 3, 64, 64), np.float32)
    paths["blob"].write_bytes(_net())
    session = onnxruntime.InferenceSession(str(paths["blob"]), providers=["CPUExecutionProvider"])
    for role, arrays in (("inputs", {"x": sample}), ("expected", {"y": session.run(None, {"x": sample})[0]})):
        with paths[role].open("wb") as file:
            np.savez(file, **arrays)
    digests = {role: hashlib.sha256(path.read_bytes()).hexdigest() for role, path in paths.items()}
    request = BenchRequest(
        blob=digests["blob"],
        format="onnx",
        inputs=digests["inputs"],
        expected=digests["expected"],
        threads=1,
        warm_max_s=0.4,
        warm_min_samples=3,
        warm_max_samples=2000,
        energy=plan,
    )
    with connect(spec, state=folder) as device:
        for role, path in paths.items():
            device.push(path, digests[role])
        return device.bench(request, spec.step_timeout_s)


def _net() -> bytes:
    """A convolution of 64 × 64 pixels to 16 channels, and its mean: some milliseconds in emulation."""
    kernel = np.random.default_rng(0).normal(size=(16, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [1, 3, 64, 64]), ("y", [1, 16, 1, 1]))
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], [numpy_helper.from_array(kernel, "kernel")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=LEAST_WINDOWS)
