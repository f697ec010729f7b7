"""Energy of real inference on emulated devices, by their own sensors, against what the lab knows they really drew.

Windows are shorter and fewer than a gate wants; `python -m benchmarks.measurement` has five of ten seconds.
"""

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from adb_client import adb_server
from labs import require_lab, running
from projects import DEPLOY, Project, Ran, project
from shells import require_compiler
from tiny_models import Bundle, digest_of, slow_onnx_bundle

from benchmarks.measurement import Truth, true_energy
from pipeline.derived import Energy
from pipeline.quality.energy import energy_per_inference
from pipeline.quality.validity import findings
from targets.device import connect
from targets.lab.faults import inflict
from targets.lab.lab import Wanted
from targets.lab.state import LabState
from targets.records import Absent, EnergyPlan, Measurement, PowerTrace, TargetSpec

LONG = EnergyPlan(windows=1, window_s=10.0, idle_s=4.0)
SHORT = EnergyPlan(windows=2, window_s=1.5, idle_s=0.6)
PHONE = EnergyPlan(windows=1, window_s=10.0, idle_s=4.0)  # its gauge and rails have something new every second
_INFERENCE = 3000  # steps of the model: some milliseconds in emulation


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    lab: LabState
    bundle: Bundle
    state: Path

    def target(self, kind: str) -> TargetSpec:
        return next(spec for spec in self.lab.target_specs() if spec.name.startswith(kind))

    def measure(self, spec: TargetSpec, plan: EnergyPlan) -> Measurement:
        made = self.bundle
        with connect(spec, state=self.state) as device:
            for path in made.files:
                device.push(path, digest_of(path))
            files = {"blob": made.model, "inputs": made.inputs, "expected": made.expected}
            return device.bench(made.request(energy=plan), 200, files)

    def compared(self, kind: str, found: Measurement) -> tuple[Energy, Truth]:
        energy = energy_per_inference(found)
        assert isinstance(energy, Energy), energy
        truth = true_energy(self.lab.folder / self.target(kind).name / "power.jsonl", found)
        print(f"{kind}: gross {energy.gross_j / truth.gross_j - 1:+.2%}, net {energy.net_j} J of {truth.net_j:.4g} J")
        return energy, truth


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    require_lab("arm64", "android")
    require_compiler("aarch64")
    folder = tmp_path_factory.mktemp("energy")
    wanted = Wanted(counts={"arm64": 3, "android": 2}, profiles=("rpi4", "rpi5", "jetson", "pixel-7"))
    with (
        adb_server(folder) as adb,
        pytest.MonkeyPatch.context() as patch,
        running(wanted, f"test-{secrets.token_hex(4)}") as lab,
    ):
        patch.setenv("ANDROID_ADB_SERVER_PORT", adb.environment["ANDROID_ADB_SERVER_PORT"])
        yield Bench(lab=lab, bundle=slow_onnx_bundle(folder / "model", _INFERENCE), state=folder)


@pytest.fixture(scope="module")
def measured(bench: Bench) -> dict[str, Measurement]:
    """Three devices at the same time: each counts its own processor time only, so they do not disturb each other."""
    plans = {"rpi4": LONG, "rpi5": SHORT, "jetson": SHORT}
    targets = {kind: bench.target(kind) for kind in plans}
    targets["rpi5"] = replace(targets["rpi5"], meter="rpi5-board")
    boards = together({kind: partial(bench.measure, targets[kind], plan) for kind, plan in plans.items()})
    # Two at a time: each also reads its sensor, and what reads too late has lost a sample.
    battery, rails = replace(bench.target("pixel-7-0"), meter="battery"), bench.target("pixel-7-1")
    phones = {"pixel-7-0": partial(bench.measure, battery, PHONE), "pixel-7-1": partial(bench.measure, rails, PHONE)}
    return {**boards, **together(phones)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubled:
    on_charger: Measurement
    heated: Measurement
    project: Project
    ran: Ran


@pytest.fixture(scope="module")
def troubled(bench: Bench, measured: dict[str, Measurement]) -> Iterator[Troubled]:
    """Again at the same time: a phone on its charger, a board in hot air, and a run as a user starts it."""
    spec = bench.target("jetson")
    place = {name: getattr(spec, name) for name in ("host", "user", "port", "python", "known_hosts", "identity_file")}
    work = project(
        bench.state / "project",
        targets={"board": place},
        recipes=["onnx-float32"],
        budgets={"energy": "2 J"},
        measure={"warm": "40 ms", "energy_window": "1 s", "energy_windows": 1},
    )
    phone = replace(bench.target("pixel-7-0"), meter="battery")
    inflict(bench.lab, phone.name, "charge")
    inflict(bench.lab, bench.target("rpi4").name, "heat", 1500)
    try:
        found: dict[str, Any] = together(
            {
                "on_charger": partial(bench.measure, phone, PHONE),
                "heated": partial(bench.measure, bench.target("rpi4"), SHORT),
                "ran": work.run,
            }
        )
    finally:
        inflict(bench.lab, phone.name, "restore")
        inflict(bench.lab, bench.target("rpi4").name, "restore")
    yield Troubled(project=work, **found)


def together(tasks: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    with ThreadPoolExecutor() as pool:
        begun = {name: pool.submit(task) for name, task in tasks.items()}
        return {name: future.result() for name, future in begun.items()}


def test_energy_over_ten_seconds_is_what_the_board_really_drew(bench: Bench, measured: dict[str, Measurement]) -> None:
    found = measured["rpi4"]
    energy, truth = bench.compared("rpi4", found)
    assert energy.meter == "ina2xx"
    assert energy.gross_j == pytest.approx(truth.gross_j, rel=0.01)
    assert energy.net_j == pytest.approx(truth.net_j, rel=0.03)
    assert energy.inferences > 20 and len(found.warm_ns) > 20  # joules and times of the same runs
    assert energy.doubts == ("1 windows, 5 are needed",)
    assert {"temperature_c_before", "temperature_c_after", "throttled_before", "throttled_after"} <= set(
        found.conditions
    )


@pytest.mark.parametrize(
    ("kind", "meter", "within"),
    [("jetson", "ina3221", 0.02), ("pixel-7-0", "battery", 0.05), ("pixel-7-1", "odpm", 0.05)],
)
def test_energy_of_a_short_window_is_near_it(
    bench: Bench, measured: dict[str, Measurement], kind: str, meter: str, within: float
) -> None:
    energy, truth = bench.compared(kind, measured[kind])
    assert energy.meter == meter
    assert energy.gross_j == pytest.approx(truth.gross_j, rel=within)
    assert "needed" in energy.doubts[-1]


def test_an_estimate_says_that_it_is_one(bench: Bench, measured: dict[str, Measurement]) -> None:
    trace = measured["rpi5"].energy
    assert isinstance(trace, PowerTrace) and trace.kind == "modelled"
    assert len(trace.power_w) > 5 and min(trace.power_w) > 2  # the board idles at 3 W


def test_a_phone_on_a_charger_has_no_energy(troubled: Troubled) -> None:
    found = troubled.on_charger
    assert isinstance(found.energy, Absent) and "the battery is charging" in found.energy.reason
    assert found.conditions["battery_status_before"] == "charging"
    assert len(found.warm_ns) >= 3  # and everything else is measured


def test_heat_during_the_run_is_seen_in_the_firmwares_bits(troubled: Troubled) -> None:
    (finding,) = findings(troubled.heated)
    assert finding.doubt == "throttled" and finding.blocking
    assert "frequency-capped" in finding.reason and "°C →" in finding.reason and "cool the device" in finding.remedy


def test_a_run_reports_energy_and_its_budget_is_left_open_on_an_emulator(troubled: Troubled) -> None:
    assert troubled.ran.status == 4, troubled.ran.err
    (candidate,) = troubled.project.report()["candidates"]
    there = candidate["targets"]["board"]
    assert 0 < there["energy"] < 1
    assert there["energy_details"]["meter"] == "ina3221"
    assert "energy cannot be judged here: qemu" in there["reason"]
    for name in ("report.md", "report.html"):
        text = (troubled.project.folder / "deploy-out" / name).read_text()
        assert "energy by ina3221" in text and "Net energy" in text, name


def test_a_session_of_measuring_holds_joules_beside_latency_and_history_shows_them(troubled: Troubled) -> None:
    command = {**troubled.project.command(), "capture_output": True, "check": False}
    quick = ["--target", "board", "--block", "0.05 s", "--max-time", "4 s", "--pause", "0"]
    command["args"] = [*DEPLOY, "measure", "onnx-float32", "--energy", "--json", *quick]
    measured = subprocess.run(**command)
    assert measured.returncode == 4, "emulated"
    (found,) = json.loads(measured.stdout)
    energy = found["energy"]["onnx-float32"]
    assert 0 < energy["net_j"] < energy["gross_j"] and energy["gross_error_j"] > 0 and energy["meter"] == "ina3221"
    trace = found["session"]["metered"]["A"]["energy"]
    assert [window["kind"] for window in trace["windows"]] == ["idle", "busy", "idle"], (
        "the evidence, as deploy.yaml asks"
    )
    assert all("reason" in block["measurement"]["energy"] for block in found["session"]["blocks"]), "blocks are apart"
    command["args"] = [*DEPLOY, "history", "--metric", "energy", "--target", "board", "--json"]
    points = json.loads(subprocess.run(**command).stdout)
    told = [point for point in points if point["source"] == "session"]
    assert [point["value"] for point in told] == [energy["gross_j"]]
    assert told[0]["interval"][0] < energy["gross_j"] < told[0]["interval"][1]
    assert any("windows" in doubt for doubt in told[0]["doubts"])


def test_a_probe_lists_the_meters(troubled: Troubled) -> None:
    command = {**troubled.project.command(), "args": [*DEPLOY, "targets", "probe", "board"]}
    told = subprocess.run(**command, capture_output=True, check=True).stdout
    assert "meter ina3221" in told
    assert "VDD_IN, input of the whole module; 25 readings a second; steps of 40 mW; ± 1.5 %" in told
