"""Our latencies beside the benchmarks that LiteRT and onnxruntime ship: the same, calmer from run to run, at no cost.

Theirs are the scripts of their wheels: `litert-benchmark`, which tells a median, and
`onnxruntime.tools.onnxruntime_test`, which tells a mean, so that our mean is held to that. A run of ours is a session
as `deploy measure` makes it, five processes or more; a run of theirs is a process with as many inferences as that
session had. They take turns, in random order, with the same MobileNetV2 and as many threads: one, as both do by
default, and beside onnxruntime's script as many as there are cores, since it takes no number. `--pairs` is of runs.

On a busy machine `chrt --fifo 10 python -m benchmarks.latency` keeps both sides from waiting for a core.
"""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np

from benchmarks.calibration.models import images, mobilenet_v2
from benchmarks.pairs import Row, absent, at_most, main
from pipeline.measuring.protocol import Plan, run
from pipeline.measuring.statistics import warm_median
from pipeline.runtimes.runtime import open_model
from targets.agent.edge.child import timer
from targets.device import Device, connect
from targets.records import BenchRequest, TargetSpec

_SPIN_NS = 50_000
_OURS_WITHIN, _CV_SHARE, _LOOP_BAR_US = 0.02, 0.5, 2.0
_MOST_S = 20.0  # of a session of ours; the default's 45 s are for worse machines
_THEIR_WARM_UP = 50  # LiteRT's script warms up five times unless it is told; ours until it stands still


def rows(pairs: int) -> Iterator[Row]:
    yield loop_row()
    with tempfile.TemporaryDirectory() as name, connect(TargetSpec(name="local"), state=Path(name)) as device:
        for peer in (
            Peer(
                name="LiteRT's own benchmark",
                format="tflite",
                tells="median",
                threads=1,
                by_default=50,
                measure=_litert_ms,
            ),
            Peer(
                name="onnxruntime's own script",
                format="onnx",
                tells="mean",
                threads=len(os.sched_getaffinity(0)),
                by_default=1000,
                measure=_onnxruntime_ms,
            ),
        ):
            try:
                yield from _beside(peer, device, Path(name), pairs)
            except RuntimeError as fault:
                yield absent(f"warm latency beside {peer.name}", "", str(fault))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A benchmark that comes with a runtime. `measure`: (model, inferences) to milliseconds; `by_default`: how many
    inferences it makes unless it is told."""

    name: str
    format: str
    tells: str
    threads: int
    by_default: int
    measure: Callable[[Path, int], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """One of our sessions."""

    median_ms: float
    mean_ms: float
    inferences: int


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


def loop_row() -> Row:
    """What the agent's own loop adds to the latency of a call."""
    model = _Spin()
    timed = timer(model)
    added = [timed() - model.ran_ns for _ in range(5000)]
    return at_most("loop overhead around a model of 50 us", median(added) / 1000, "us", _LOOP_BAR_US)


def _beside(peer: Peer, device: Device, folder: Path, pairs: int) -> Iterator[Row]:
    model = mobilenet_v2(peer.format)
    plan = _plan(device, model, folder, peer.threads)
    draw = random.Random(0)
    ours: list[Ours] = []
    theirs: list[float] = []
    short: list[float] = []
    count = _session(device, plan).inferences  # of a first one, which warms the machine up and is not counted
    for _ in range(pairs):
        if draw.random() < 0.5:
            theirs.append(peer.measure(model, count))
            ours.append(_session(device, plan))
        else:
            ours.append(_session(device, plan))
            theirs.append(peer.measure(model, ours[-1].inferences))
        count = ours[-1].inferences
        short.append(peer.measure(model, peer.by_default))
    alike = [own.mean_ms if peer.tells == "mean" else own.median_ms for own in ours]
    ratios = [own / their for own, their in zip(alike, theirs, strict=True)]
    spread = f"{min(ratios):.3f} … {median(ratios):.3f} … {max(ratios):.3f}, n={pairs}; load {os.getloadavg()[1]:.1f}"
    print(f"  {peer.name}: {median(theirs):.3f} ms, ours {median(alike):.3f} ms; ratios {spread}", file=sys.stderr)
    yield at_most(f"our warm {peer.tells} off that of {peer.name}", abs(median(ratios) - 1), "", _OURS_WITHIN)
    if pairs > 1:
        own_cv = _cv([own.median_ms for own in ours])
        for name, their_cv in (("as many inferences", _cv(theirs)), (f"its {peer.by_default} by default", _cv(short))):
            what = f"run-to-run CV, beside {peer.name}'s with {name}"
            yield at_most(what, own_cv, "", _CV_SHARE * their_cv, peer=their_cv)


def _cv(values: Sequence[float]) -> float:
    return stdev(values) / mean(values)


def _plan(device: Device, model: Path, folder: Path, threads: int) -> Plan:
    """As `deploy measure` has it by default."""
    sample = next(images(1))
    opened = open_model(model.suffix[1:], model)
    arrays = {opened.inputs[0].name: sample}
    answer = opened.invoke(arrays)
    paths = {"blob": model, "inputs": folder / "inputs.npz", "expected": folder / "expected.npz"}
    np.savez(paths["inputs"], **arrays)
    np.savez(paths["expected"], **answer)
    digests = {role: hashlib.sha256(path.read_bytes()).hexdigest() for role, path in paths.items()}
    for role, path in paths.items():
        device.push(path, digests[role])
    request = BenchRequest(
        blob=digests["blob"],
        format="onnx" if model.suffix == ".onnx" else "tflite",
        inputs=digests["inputs"],
        expected=digests["expected"],
        threads=threads,
        warm_max_s=1.0,
        warm_min_samples=3,
        warm_max_samples=2000,
    )
    return Plan(requests={"A": request}, models={"A": model.name}, files={"A": paths}, max_s=_MOST_S)


def _session(device: Device, plan: Plan) -> Ours:
    blocks = run(device, plan).blocks
    samples = np.concatenate([np.array(block.measurement.warm_ns) for block in blocks]) / 1e6
    return Ours(median_ms=warm_median(blocks).value, mean_ms=float(samples.mean()), inferences=len(samples))


def _litert_ms(model: Path, inferences: int) -> float:
    """The median of `litert-benchmark`, in steps of 0.01 ms, with the one thread that is its default."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "result.json"
        options = {"model": model, "num_runs": inferences, "warmup_runs": _THEIR_WARM_UP, "result_json": told}
        words = [f"--{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not told.is_file():
            raise RuntimeError(f"it says no latency: {done.stderr[-200:]}")
        return float(json.loads(told.read_text())["latency"]["median_ms"])


def _onnxruntime_ms(model: Path, inferences: int) -> float:
    """The mean that the script prints. It takes no number of threads: it has as many as there are cores."""
    command = [sys.executable, "-m", "onnxruntime.tools.onnxruntime_test", str(model), str(inferences)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = re.search(r"avg latency: ([\d.]+) ms", done.stdout)
    if told is None:
        raise RuntimeError(f"it says no latency: {done.stderr[-200:]}")
    return float(told[1])


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=10)
