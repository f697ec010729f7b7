"""Our C programs on emulated devices: a board over SSH, and an Android device over the genuine adb and adbd."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adb_client import Adb, adb_server
from int8_models import int8_onnx_bundle, int8_tflite_bundle
from labs import require_lab, running
from shells import AdbShell, TransportShell, require_compiler
from tiny_models import Bundle, onnx_bundle, tflite_bundle

from targets.lab.lab import Wanted
from targets.lab.state import LOOPBACK, LabState
from targets.records import TargetSpec
from targets.runner import Shell
from targets.runners.native import NativeRunner
from targets.transports.ssh import SshTransport
from targets.wire import decode_measurement

_DEADLINE_S = 120.0  # in emulation, on a machine that does other things as well


@pytest.fixture(scope="module")
def lab() -> Iterator[LabState]:
    require_lab("arm64", "android")
    require_compiler("aarch64")
    counts = {"arm64": 1, "android": 1}
    with running(Wanted(counts=counts, profiles=("rpi5", "pixel-7")), f"test-{secrets.token_hex(4)}") as lab:
        yield lab


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    with adb_server(tmp_path_factory.mktemp("adb")) as client:
        yield client


@pytest.fixture(scope="module")
def board(lab: LabState, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    (spec,) = (spec for spec in lab.target_specs() if spec.name.startswith("rpi5"))
    transport = SshTransport(spec, tmp_path_factory.mktemp("state"))
    transport.open()
    yield TransportShell(transport, "aarch64", f"/tmp/runner-{secrets.token_hex(4)}")
    transport.close()


@pytest.fixture(scope="module")
def phone(lab: LabState, adb: Adb) -> Shell:
    serial = f"{LOOPBACK}:{lab.device('pixel-7-0').port}"
    adb.connect(serial)
    return AdbShell(adb, serial)


@pytest.mark.parametrize("make", [tflite_bundle, int8_tflite_bundle, onnx_bundle, int8_onnx_bundle])
@pytest.mark.parametrize("device", ["board", "phone"])
def test_it_answers_as_the_host_does_bit_by_bit(
    request: pytest.FixtureRequest, tmp_path: Path, device: str, make: Callable[[Path], Bundle]
) -> None:
    shell: Shell = request.getfixturevalue(device)
    bundle = make(tmp_path)
    asked = bundle.request(threads=2)
    files = {"blob": bundle.model, "inputs": bundle.inputs, "expected": bundle.expected}
    measured = decode_measurement(
        device, asked, NativeRunner(TargetSpec(name=device)).bench(shell, asked, files, _DEADLINE_S)
    )
    assert (measured.answer.max_steps, measured.answer.finite) == (0.0, True)
    assert len(measured.warm_ns) >= 3 and min(measured.warm_ns) > 0
