"""Energy of real inference on emulated devices, by their own sensors, against what the lab knows they really drew.

Windows are short: a test has no time for five of ten seconds. `python -m benchmarks.measurement` takes that.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import require_lab, running
from tiny_models import Bundle, digest_of, slow_onnx_bundle

from benchmarks.measurement import Truth, true_energy
from pipeline.derived import Energy
from pipeline.quality.energy import energy_per_inference
from targets.device import connect
from targets.lab.lab import Wanted
from targets.lab.state import LabState
from targets.records import EnergyPlan, Measurement, TargetSpec

SHORT = EnergyPlan(windows=2, window_s=1.5, idle_s=0.6)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabState]:
    require_lab("arm64", "android")
    counts = {"arm64": 3, "android": 1}
    profiles = ("rpi4", "rpi5", "jetson", "pixel-7")
    with running(Wanted(counts=counts, profiles=profiles), f"test-{secrets.token_hex(4)}") as lab:
        yield lab


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return slow_onnx_bundle(tmp_path / "model", 3000)


def target(lab: LabState, kind: str) -> TargetSpec:
    return next(spec for spec in lab.target_specs() if spec.name.startswith(kind))


def measured(spec: TargetSpec, bundle: Bundle, state: Path, plan: EnergyPlan) -> Measurement:
    with connect(spec, state=state) as device:
        for path in bundle.files:
            device.push(path, digest_of(path))
        files = {"blob": bundle.model, "inputs": bundle.inputs, "expected": bundle.expected}
        return device.bench(bundle.request(energy=plan), 120, files)


def compared(lab: LabState, spec: TargetSpec, found: Measurement) -> tuple[Energy, Truth]:
    energy = energy_per_inference(found)
    assert isinstance(energy, Energy), energy
    truth = true_energy(lab.folder / spec.name / "power.jsonl", found)
    print(f"{spec.name}: gross {energy.gross_j / truth.gross_j - 1:+.2%}, net {energy.net_j} of {truth.net_j}")
    return energy, truth


@pytest.mark.parametrize(("kind", "meter"), [("rpi4", "ina2xx"), ("jetson", "ina3221")])
def test_a_boards_energy_is_what_it_really_drew(
    lab: LabState, bundle: Bundle, tmp_path: Path, kind: str, meter: str
) -> None:
    spec = target(lab, kind)
    found = measured(spec, bundle, tmp_path, SHORT)
    energy, truth = compared(lab, spec, found)
    assert energy.meter == meter
    assert energy.gross_j == pytest.approx(truth.gross_j, rel=0.02)  # in windows of 1.5 s; the bar is 1 % in 10 s
    assert energy.inferences > 5 and len(found.warm_ns) > 5
    assert {"temperature_c_before", "temperature_c_after"} <= found.conditions.keys()
    assert "2 windows, 5 are needed" in energy.doubts
