"""Measuring by the protocol in the lab: heat that throttles, each runtime, a clock that repeats."""

import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adb_client import Adb, adb_server
from labs import prefer, require_lab, running
from shells import require_compiler
from tiny_models import Bundle, digest_of, onnx_bundle, slow_onnx_bundle, tflite_bundle

from pipeline.measuring.protocol import Plan, pairs, run
from pipeline.measuring.records import Block, Finding, Session
from pipeline.measuring.settling import Settled, curve, settled
from pipeline.measuring.statistics import compare
from pipeline.measuring.validity import findings
from targets.device import Device, connect
from targets.errors import InputError
from targets.lab.faults import inflict
from targets.lab.lab import Wanted, command_inside
from targets.lab.power.truth import read_truth
from targets.lab.state import LabState
from targets.lab.trees import interpreter
from targets.records import Absent, TargetSpec

BLOCK_S = 0.3
COOL_BLOCKS, HOT_BLOCKS = 4, 12  # of a sustained session, before it gets hot and after
HEAT_K = 300.0  # from some 50 °C past 80 °C in about seven seconds


@pytest.fixture(scope="module")
def lab() -> Iterator[LabState]:
    require_lab("arm64")
    wanted = Wanted(counts={"arm64": 2}, profiles=("rpi4", "rpi5"))
    with running(wanted, f"test-{secrets.token_hex(4)}") as lab:
        prefer(lab.name)
        yield lab


def spec_of(lab: LabState, kind: str) -> TargetSpec:
    return next(spec for spec in lab.target_specs() if spec.name.startswith(kind))


def pushed(device: Device, bundle: Bundle) -> None:
    for path in bundle.files:
        device.push(path, digest_of(path))


def session(
    spec: TargetSpec,
    state: Path,
    bundle: Bundle,
    told: Callable[[Block], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    **plan: Any,
) -> Session:
    request = bundle.request(warm_max_s=BLOCK_S, warm_max_samples=2000)
    settings: dict[str, Any] = {"requests": {"A": request}, "models": {"A": "m"}, "files": {"A": {}}, "gate_wait_s": 0}
    with connect(spec, state=state) as device:
        pushed(device, bundle)
        return run(device, Plan(**{**settings, **plan}), told, clock=clock)


def doubts(found: Sequence[Finding]) -> dict[str, Finding]:
    return {finding.doubt: finding for finding in found}


@contextmanager
def busy(lab: LabState, name: str) -> Iterator[None]:
    """A program of somebody else's on a device."""
    script = "while :; do :; done & echo begun; read end; kill $!"
    command = command_inside(lab, name, ("sh", "-c", script))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdin and program.stdout and program.stdout.readline()
        yield
        program.stdin.close()


def test_a_competing_process_is_background_load_and_a_neighbours_is_none(lab: LabState, tmp_path: Path) -> None:
    spec, bundle = spec_of(lab, "rpi5"), slow_onnx_bundle(tmp_path / "model", 500)
    with connect(spec, state=tmp_path):
        pass  # brings the agent there
    few = {"least": 3, "most": 3}
    with busy(lab, spec_of(lab, "rpi4").name):
        calm = session(spec, tmp_path, bundle, **few)
    assert "background-load" not in doubts(calm.findings), doubts(calm.findings)["background-load"].reason
    with busy(lab, spec.name):
        disturbed = session(spec, tmp_path, bundle, **few)
    found = doubts(disturbed.findings)["background-load"]
    assert found.blocking and "every block" in found.reason and "top" in found.remedy


class Enough(Exception):
    """Ends a session that has seen what it was for, however slow this machine is."""


def test_heat_is_the_result_in_sustained_mode_and_a_doubt_in_cool_mode(lab: LabState, tmp_path: Path) -> None:
    spec, bundle = spec_of(lab, "rpi4"), slow_onnx_bundle(tmp_path / "model", 2000)
    with connect(spec, state=tmp_path) as device:
        facts = device.facts()
    asked: list[float] = []
    taken: list[Block] = []

    def clock() -> float:
        asked.append(time.monotonic())
        return asked[-1]

    def throttled_s() -> float | None:
        """What the lab knows of the device, which the device cannot see: when it was slowed down."""
        log = read_truth(lab.folder / spec.name / "power.jsonl")
        hot = (line.t_monotonic_ns / 1e9 for line in log if line.throttled)
        return next((at_s - asked[0] for at_s in hot if at_s > asked[0]), None)

    def told(block: Block) -> None:
        taken.append(block)
        if len(taken) == COOL_BLOCKS:
            inflict(lab, spec.name, "heat", HEAT_K)
        since_s = throttled_s()
        if since_s is not None and sum(each.start_s > since_s for each in taken) >= HOT_BLOCKS:
            raise Enough

    with pytest.raises(Enough):
        session(spec, tmp_path, bundle, told, clock, mode="sustained", max_s=120.0, most=1000)
    times, medians = curve(taken)
    true_s = throttled_s()
    assert true_s is not None
    steady_ms = np.median(medians[times > true_s])
    assert steady_ms > 1.3 * np.median(medians[:COOL_BLOCKS]), "slowed to 0.55 of its clock"
    found = settled(taken)
    assert isinstance(found, Settled) and isinstance(found.throttled_after_s, float), found
    block_s = float(np.max(np.diff(times)))
    cool_s = float(times[COOL_BLOCKS - 1])  # from then on a busy machine may slow it as well, before the heat does
    assert cool_s <= found.throttled_after_s <= true_s + 2 * block_s
    assert cool_s <= found.after_s <= true_s + 4 * block_s
    assert found.steady_ms == pytest.approx(steady_ms, rel=0.1)
    assert not doubts(findings(facts, taken, sustained=True))["throttled"].blocking, "that is the result"
    cool = session(spec, tmp_path, bundle, mode="cool", max_s=1.0, least=2)
    slowed = doubts(cool.findings)["throttled"]
    assert slowed.blocking and not cool.trusted and "--mode sustained" in slowed.remedy


@pytest.mark.parametrize(
    ("environment", "runtime", "make"),
    [
        ("litert", "ai-edge-litert", tflite_bundle),
        ("onnxruntime", "onnxruntime", onnx_bundle),
        ("tflite", "tflite-runtime", tflite_bundle),
    ],
)
def test_each_runtime_of_the_board_gives_a_session_that_is_labelled_emulated(
    lab: LabState, tmp_path: Path, environment: str, runtime: str, make: Callable[[Path], Bundle]
) -> None:
    spec = replace(spec_of(lab, "rpi5"), python=interpreter(environment))
    found = session(spec, tmp_path, make(tmp_path / "model"), least=2, most=2)
    assert {block.measurement.runtime for block in found.blocks} == {runtime}
    assert all("qemu" in block.measurement.conditions["emulated"] for block in found.blocks)
    assert doubts(found.findings)["emulated"].blocking
    assert all(block.measurement.answer.max_steps == 0 for block in found.blocks)
    with connect(spec, state=tmp_path) as device:
        (op,) = device.profile(make(tmp_path / "model").request(), 60).ops
    assert isinstance(op.us, Absent if runtime == "tflite-runtime" else float), op


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    with adb_server(tmp_path_factory.mktemp("adb")) as client, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", client.environment["ANDROID_ADB_SERVER_PORT"])
        yield client


def test_a_phone_is_measured_by_the_same_protocol_and_refuses_what_it_cannot(adb: Adb, tmp_path: Path) -> None:
    require_lab("android")
    require_compiler("aarch64")
    bundle = tflite_bundle(tmp_path / "model")
    files = dict(zip(("blob", "inputs", "expected"), bundle.files, strict=True))
    wanted = Wanted(counts={"android": 1}, profiles=("pixel-7",))
    with running(wanted, f"test-{secrets.token_hex(4)}") as lab:
        (spec,) = lab.target_specs()
        found = session(spec, tmp_path, bundle, files={"A": files}, least=3, most=3, pause_s=0.1)
        assert not found.duty and "no pauses between runs" in found.duty_refused, "and the session is not lost"
        assert len(found.blocks) == 3 and doubts(found.findings)["emulated"].blocking
        assert all(block.measurement.answer.max_steps == 0 for block in found.blocks)
        with connect(spec, state=tmp_path) as device:
            pushed(device, bundle)
            for refused, name in (({"pause_s": 0.1}, "pause"), ({"governor": "performance"}, "governor")):
                with pytest.raises(InputError, match=name):
                    device.bench(bundle.request(**refused), 60, files)


def test_one_percent_more_work_is_detected_where_the_clock_repeats(tmp_path: Path) -> None:
    require_lab("vm")
    old, new = slow_onnx_bundle(tmp_path / "old", 2000), slow_onnx_bundle(tmp_path / "new", 2020)
    with running(Wanted(counts={"vm": 1}), f"test-{secrets.token_hex(4)}") as lab:
        spec = replace(lab.target_specs()[0], connect_timeout_s=60.0)
        with connect(spec, state=tmp_path) as device:
            for bundle in (old, new):
                pushed(device, bundle)
            few = {"warm_max_s": 0.1, "warm_max_samples": 30}
            plan = Plan(
                requests={"A": old.request(**few), "B": new.request(**few)},
                models={"A": "old", "B": "new"},
                files={"A": {}, "B": {}},
                least=4,
                most=8,
                max_s=60.0,
            )
            found = compare(pairs(run(device, plan).blocks), 0.003)
    assert found.verdict == "slower", found
    assert 1.003 < found.ratio.value < 1.02 and found.smallest_detectable < 0.005, found
