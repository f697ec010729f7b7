"""The ARM64 virtual machine of the device lab: latencies that repeat, answers as here, and that it is a device."""

import secrets
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from int8_models import int8_onnx_bundle, int8_tflite_bundle
from labs import lab_namespaces, remains, require_lab, running, surroundings
from tiny_models import Bundle, digest_of

from targets.device import Device, connect
from targets.errors import AuthRefused, DeployError, DiskFull
from targets.lab.faults import inflict
from targets.lab.lab import Wanted, command_inside, down
from targets.lab.machine_image import MachineImage
from targets.lab.state import LabState
from targets.records import Measurement, TargetSpec

DISK_BYTES = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def lab() -> Iterator[LabState]:
    require_lab("vm")
    wanted = Wanted(counts={"vm": 1}, disk_bytes=DISK_BYTES)
    with running(wanted, f"test-{secrets.token_hex(4)}") as lab:
        yield lab


@pytest.fixture
def spec(lab: LabState) -> TargetSpec:
    return replace(lab.target_specs()[0], connect_timeout_s=60.0)  # it shares two processors with all other tests


def inside(lab: LabState, *command: str) -> subprocess.CompletedProcess[str]:
    argv = command_inside(lab, "vm-0", command)
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def measured(device: Device, bundle: Bundle) -> Measurement:
    for path in bundle.files:
        device.push(path, digest_of(path))
    return device.bench(bundle.request(), 300)


def test_it_is_a_whole_machine_and_says_that_its_clock_is_emulated(
    lab: LabState, spec: TargetSpec, tmp_path: Path
) -> None:
    told = inside(lab, "date", "+%s")
    assert abs(time.time() - int(told.stdout)) < 60, "certificates and times of files depend on it"
    with connect(spec, state=tmp_path) as device:
        facts = device.facts()
        answered = measured(device, int8_onnx_bundle(tmp_path / "model")).answer
    assert answered.max_steps == 0, "not what the host answers"
    assert facts.emulated.startswith("emulated instruction clock")
    assert (facts.arch, facts.cpu_count) == ("aarch64", 1)
    assert "Cortex-A72" in facts.cpu_model
    assert facts.kernel.endswith("-arm64")
    assert set(facts.runtimes) == {"ai-edge-litert", "onnxruntime"}
    assert 0.9 * DISK_BYTES < facts.free_disk_bytes <= DISK_BYTES


def test_latencies_repeat_from_session_to_session(spec: TargetSpec, tmp_path: Path) -> None:
    bundle, medians = int8_tflite_bundle(tmp_path / "model"), []
    for _ in range(3):
        with connect(spec, state=tmp_path) as device:
            seen = measured(device, bundle)
        assert seen.answer.max_steps == 0
        assert seen.conditions["emulated"].startswith("emulated instruction clock")
        medians.append(statistics.median(seen.warm_ns))
    # Its timer counts in steps of 16 ns, and a median may fall between two of them on either side.
    assert max(medians) - min(medians) <= max(0.002 * min(medians), 2 * 16), medians


def test_it_is_administered_by_its_console_whatever_becomes_of_its_own_sshd(
    lab: LabState, spec: TargetSpec, tmp_path: Path
) -> None:
    said = inside(lab, "sh", "-c", "id -u; exit 3")
    assert (said.stdout, said.returncode) == ("0\n", 3)
    image = MachineImage(place=Path(lab.resources["vm"]))
    before = [(path.stat().st_mtime_ns, path.stat().st_blocks) for path in image.place.iterdir()]
    blob = tmp_path / "blob"
    blob.write_bytes(secrets.token_bytes(1 << 20))
    with connect(spec, state=tmp_path) as device:
        inflict(lab, "vm-0", "full")
        with pytest.raises(DiskFull):
            device.push(blob, digest_of(blob))
        inflict(lab, "vm-0", "kill")
        with pytest.raises(DeployError):
            device.facts()
    inflict(lab, "vm-0", "auth")
    with pytest.raises(AuthRefused):
        connect(spec, state=tmp_path)
    inflict(lab, "vm-0", "reboot", 0.0)  # to a new disk, and with the key
    with connect(spec, state=tmp_path) as device:
        assert device.push(blob, digest_of(blob))
    after = [(path.stat().st_mtime_ns, path.stat().st_blocks) for path in image.place.iterdir()]
    assert before == after, "what all machines share is never written"


def test_nothing_is_left_of_it(lab: LabState) -> None:
    made, before = lab_namespaces(lab.name), surroundings()
    down(lab.name)
    assert remains(lab.name, made) == []
    assert surroundings() == before
