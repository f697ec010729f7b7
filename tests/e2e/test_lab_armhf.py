"""Emulated 32-bit boards of the device lab: what they look like, and what their one runtime answers."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dense_models
import numpy as np
import pytest
from int8_models import int8_tflite_bundle
from labs import require_lab, running
from tiny_models import digest_of

from pipeline.fit.fitter import Fitter, probed
from pipeline.store import Store
from pipeline.worker import Worker
from targets.device import connect
from targets.lab.lab import Wanted, command_inside
from targets.lab.profiles import profiles
from targets.lab.state import LabState
from targets.records import Absent, BenchRequest


@pytest.fixture(scope="module")
def lab() -> Iterator[LabState]:
    require_lab("armhf")
    with running(Wanted(counts={"armhf": 1}), f"test-{secrets.token_hex(4)}") as lab:
        yield lab


def test_the_board_is_what_it_claims(lab: LabState, tmp_path: Path) -> None:
    with connect(lab.target_specs()[0], state=tmp_path) as device:
        facts = device.facts()
    assert facts.arch == "armv7l"
    assert facts.cpu_model == "Raspberry Pi 3 Model B Rev 1.2 (4x Cortex-A53)"
    assert {"neon", "vfpv4"} <= set(facts.cpu_features)
    assert facts.kernel == profiles()["rpi3-32"]["kernel"]
    assert facts.python.startswith("3.11.")
    assert facts.runtimes == {"tflite-runtime": "2.14.0"}
    assert not isinstance(facts.temperature_c, Absent) and 40 < facts.temperature_c < 60
    assert "qemu" in facts.emulated


def test_an_integer_model_answers_within_a_rounding_step(lab: LabState, tmp_path: Path) -> None:
    bundle = int8_tflite_bundle(tmp_path / "model")
    with connect(lab.target_specs()[0], state=tmp_path) as device:
        for path in bundle.files:
            device.push(path, digest_of(path))
        measured = device.bench(bundle.request(), 120)
    assert (measured.runtime, measured.runtime_version) == ("tflite-runtime", "2.14.0")
    assert measured.answer.finite and measured.answer.max_steps <= 1


def test_a_model_too_new_for_its_runtime_answers_lowered(lab: LabState, tmp_path: Path) -> None:
    model, golden = dense_models.stamped(tmp_path / "net.tflite", 12), tmp_path / "golden.npz"
    np.savez(golden, **dense_models.sample())
    store = Store(tmp_path / "state")
    with connect(lab.target_specs()[0], state=tmp_path) as device, Worker() as worker:
        fit = Fitter(worker, store, store.workspace).fit(model, probed(device), golden=golden)
        assert fit.answer == "lowering" and fit.lowered, fit.text
        assert fit.lowered.max_error < 0.01
        blobs = (fit.lowered.blob, store.add_file(golden), fit.lowered.golden_outputs)
        for blob in blobs:
            device.push(store.path(blob), blob)
        request = BenchRequest(
            blob=blobs[0],
            format="tflite",
            inputs=blobs[1],
            expected=blobs[2],
            threads=1,
            warm_max_s=0.5,
            warm_min_samples=3,
            warm_max_samples=5,
        )
        measured = device.bench(request, 120)
        assert device.try_runtimes() == {"tflite-runtime": ""}
    assert measured.runtime == "tflite-runtime"
    # Its own kernels round the activations another way than XNNPACK's on this host.
    assert measured.answer.finite and measured.answer.max_steps <= 3


def test_programs_have_32_bits(lab: LabState) -> None:
    script = "import struct, sys; print(struct.calcsize('P') * 8, sys.maxsize == 2**31 - 1)"
    command = command_inside(lab, "rpi3-32-0", ["/opt/tflite/bin/python", "-I", "-c", script])
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "32 True\n"
