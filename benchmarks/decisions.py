"""What sessions of measuring decide: A/B under drift, 1 % on a machine whose clock repeats, and how long one takes.

A/B: 200 comparisons on synthetic devices that drift or throttle, where B takes 1.00 or 1.05 times as long as A; beside
it what is usually done on the same devices, all of A and then all of B with Welch's test of the samples. The machine is
the device lab's ARM64 one, whose clock counts instructions. The session is `deploy measure` by default, as a user
starts it, of a model of 5 ms that has to be made first.
"""

import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from onnx import helper

from benchmarks.pairs import ROOT, Row, absent, at_least, at_most, deploy, main, wall_s
from pipeline.measuring.log import kept
from pipeline.measuring.protocol import Plan, pairs, run
from pipeline.measuring.statistics import compare, warm_median
from targets.device import connect
from targets.errors import DeployError
from targets.lab.lab import Wanted, down, up
from targets.records import TargetSpec

sys.path.insert(0, str(ROOT / "tests"))  # synthetic devices and small models are those of the tests

from projects import onnx_model, project
from synthetic_device import SyntheticDevice, request
from tiny_models import digest_of, slow_onnx_bundle

_COMPARISONS = 200
_MARGIN = 0.025  # half-way between the two truths
_NAIVE_BLOCKS = 10  # of each model, one after the other
_WRONG_BAR, _NAIVE_BAR, _SESSION_BAR_S = 5.0, 30.0, 60.0
_SLOWER = 1.01
_VM_MARGIN = 0.003  # far less than 1 %: the instruction clock repeats
_MIDDLE_MS = 5.0


def rows(count: int) -> Iterator[Row]:
    yield from _decision_rows()
    yield _session_row()
    yield _one_percent_row()


def _decision_rows() -> Iterator[Row]:
    """A verdict is wrong that is not the truth's; one that is left open is counted beside it."""
    plan = Plan(
        requests={"A": request("a"), "B": request("b")},
        models={"A": "old", "B": "new"},
        files={"A": {}, "B": {}},
        least=10,
        most=40,
        max_s=60,
    )
    wrong = undecided = naive_wrong = 0
    for number in range(_COMPARISONS):
        ratio, weather = (1.0, 1.05)[number % 2], _weather(number)
        device = SyntheticDevice(ratio=ratio, seed=number, **weather)
        verdict = compare(pairs(run(device, plan, clock=device.clock, sleep=device.sleep).blocks), _MARGIN).verdict
        wrong += verdict not in ("slower" if ratio > 1 else "not-slower", "undecided")
        undecided += verdict == "undecided"
        naive_wrong += one_after_the_other(SyntheticDevice(ratio=ratio, seed=number, **weather)) != (ratio > 1)
    percent = 100 / _COMPARISONS
    print(f"  of {_COMPARISONS} comparisons {undecided * percent:.1f} % undecided", file=sys.stderr)
    yield at_most("A/B decision error under drift", wrong * percent, "%", _WRONG_BAR, naive_wrong * percent)
    yield at_least("the same devices, all of A and then all of B", naive_wrong * percent, "%", _NAIVE_BAR)


def _weather(number: int) -> Mapping[str, float]:
    return {"drift_per_s": 0.004} if number % 4 < 2 else {"throttle_at_s": 12.0, "drift_per_s": 0.001}


def one_after_the_other(device: SyntheticDevice) -> bool:
    """Whether B is slower by more than the margin, at 5 % (Welch)."""
    found = {m: [device.bench(request(m), 1).warm_ns for _ in range(_NAIVE_BLOCKS)] for m in ("a", "b")}
    a, b = (np.log(np.concatenate(found[m])) for m in ("a", "b"))
    error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return bool(b.mean() - a.mean() - np.log(1 + _MARGIN) > 1.645 * error)


def _session_row() -> Row:
    """From a new folder, so that the model is exported and checked in that time too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = project(folder, recipes=["onnx-float32"], quality={"metrics": []})
        _write_middle_model(folder)
        made.write()
        seconds = wall_s([*deploy(), "measure", "onnx-float32"], cwd=folder, codes=(0, 4))
        (session,) = kept(folder / ".deploy")
    found = warm_median(session.blocks)
    told = f"{found.value:.1f} ms ± {found.half_width:.1%} of {found.processes} processes"
    doubts = ", ".join(finding.doubt for finding in session.findings) or "none"
    print(f"  {told}; {session.stopped}; doubts: {doubts}", file=sys.stderr)
    if not 0.4 * _MIDDLE_MS < found.value < 4 * _MIDDLE_MS:  # a busy machine is no reason
        return absent("a default `deploy measure` of a model of 5 ms", "s", f"here it takes {found.value:.1f} ms")
    return at_most("a default `deploy measure` of a model of 5 ms", seconds, "s", _SESSION_BAR_S)


def _write_middle_model(folder: Path) -> None:
    """Three convolutions of 32 channels over 112 x 112 pixels, and samples, in place of the project's own."""
    random = np.random.default_rng(0)
    sizes = {"k0": (32, 3, 3, 3), "k1": (32, 32, 3, 3), "k2": (32, 32, 3, 3)}
    weights = {name: random.normal(size=size).astype(np.float32) / 10 for name, size in sizes.items()}
    nodes = [helper.make_node("Conv", [f"t{n}", f"k{n}"], [f"t{n + 1}"], pads=[1, 1, 1, 1]) for n in range(3)]
    nodes += [helper.make_node("GlobalAveragePool", ["t3"], ["p"]), helper.make_node("Flatten", ["p"], ["scores"])]
    (folder / "net.onnx").write_bytes(onnx_model(nodes, {"t0": ["n", 3, 112, 112]}, {"scores": ["n", 32]}, weights))
    for part, seed in (("calibrate", 1), ("test", 2)):
        x = np.random.default_rng(seed).normal(size=(3, 3, 112, 112)).astype(np.float32)
        np.savez(folder / f"{part}.npz", t0=x)


def _one_percent_row() -> Row:
    what, lab_name = "a slowdown of 1 % on the icount machine", f"bench-{secrets.token_hex(4)}"
    try:
        lab = up(lab_name, Wanted(counts={"vm": 1}))
    except DeployError as fault:
        return absent(what, "%", fault.message)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _one_percent(what, replace(lab.target_specs()[0], connect_timeout_s=60.0), Path(folder))
    finally:
        down(lab_name)


def _one_percent(what: str, spec: TargetSpec, folder: Path) -> Row:
    iterations = 2000
    old = slow_onnx_bundle(folder / "old", iterations)
    new = slow_onnx_bundle(folder / "new", round(iterations * _SLOWER))
    few = {"warm_max_s": 0.1, "warm_max_samples": 30}
    plan = Plan(
        requests={"A": old.request(**few), "B": new.request(**few)},
        models={"A": "old", "B": "new"},
        files={"A": {}, "B": {}},
        least=4,
        most=8,
        max_s=60.0,
    )
    with connect(spec, state=folder) as device:
        for bundle in (old, new):
            for path in bundle.files:
                device.push(path, digest_of(path))
        found = compare(pairs(run(device, plan).blocks), _VM_MARGIN)
    print(f"  {found.reason}; could have seen {found.smallest_detectable:.2%}", file=sys.stderr)
    seen = found.verdict == "slower"
    value, bar = 100 * (found.ratio.value - 1), 100 * _VM_MARGIN
    return Row(name=what, value=value, unit="%", peer=None, bar=bar, ok=seen, reason="" if seen else "not seen")


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=1)
