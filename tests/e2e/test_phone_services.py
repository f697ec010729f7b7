"""What Android's own services are for, on a phone of the lab that has them: `run-as`, and fixed-performance mode."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adb_client import adb_server
from labs import require_lab, running
from releases import make_release
from tiny_models import digest_of, onnx_bundle

from targets.device import connect
from targets.devices.shell import ShellDevice
from targets.devices.shell_session import ShellSession
from targets.errors import InputError, NotSupported
from targets.lab.lab import Wanted, command_inside
from targets.lab.state import LabState
from targets.records import BenchRequest, Measurement, TargetSpec
from targets.runner import Shell
from targets.transports.adb import AdbTransport

_APP = "com.example.debug"
_FOLDER = f"/data/data/{_APP}/files/edge-deploy"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabState]:
    require_lab("adbd")
    with adb_server(tmp_path_factory.mktemp("adb")) as adb, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", adb.environment["ANDROID_ADB_SERVER_PORT"])
        with running(Wanted(counts={"adbd": 1}, disk_bytes=32_000_000), f"test-{secrets.token_hex(4)}") as started:
            yield started


@pytest.fixture
def spec(lab: LabState) -> TargetSpec:
    return replace(lab.target_specs()[0], app=_APP)


def inside(lab: LabState, script: str) -> str:
    argv = command_inside(lab, "phone-0", ["sh", "-c", script])
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_the_app_has_what_is_current(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    first, second = make_release(tmp_path, 1), make_release(tmp_path, 2)
    with connect(spec, state=tmp_path) as device:
        store = device.releases
        for made in (first, second):
            made.on(device)
        store.activate(first.id)
        store.confirm(first.id)
        blob = inside(lab, f"cd {_FOLDER} && stat -c '%u %a' * && cat release && sha256sum model*").split()
        assert blob[:4] == ["10123", "600"] * 2 and blob[4] == first.id and blob[5] in first.files
        store.activate(second.id)
        assert inside(lab, f"cat {_FOLDER}/release").strip() == second.id
        store.revert(first.id)
        assert inside(lab, f"cd {_FOLDER} && cat release; ls | wc -l").split() == [first.id, "2"]
        inside(lab, f"rm -r {_FOLDER}")  # as after a new installation
        assert store.installed().current == "", "what the app has not got is not in use"
        store.activate(first.id)
        assert (store.installed().current, store.installed().confirmed) == (first.id, first.id)
        store.revert("")
        assert inside(lab, f"ls -d {_FOLDER} 2>/dev/null || echo none").strip() == "none"


@pytest.mark.parametrize(
    ("package", "says", "hint"),
    [
        ("com.example.release", "com.example.release is not debuggable", "debug build"),
        ("com.example.unknown", "there is no app com.example.unknown", "adb install"),
    ],
)
def test_an_app_that_lets_nobody_in(spec: TargetSpec, tmp_path: Path, package: str, says: str, hint: str) -> None:
    with connect(replace(spec, app=package), state=tmp_path) as device:
        with pytest.raises(NotSupported, match=says) as caught:
            device.releases.installed()  # the first that any rollout asks: before a byte is sent
        assert hint in caught.value.hint


def test_a_name_that_is_none_is_refused(spec: TargetSpec, tmp_path: Path) -> None:
    with connect(replace(spec, app="x; reboot"), state=tmp_path) as device, pytest.raises(InputError, match="no name"):
        device.releases.installed()


class Looker:
    """A runner that looks at the phone's mode while it measures."""

    def __init__(self, spec: TargetSpec) -> None:
        self.spec = spec

    def runtimes(self, shell: Shell) -> Mapping[str, str]:
        return {}

    def bench(
        self, shell: Shell, request: BenchRequest, files: Mapping[str, Path], deadline_s: float
    ) -> Mapping[str, Any]:
        done = shell.run(["sh", "-c", "sleep 0.3; getprop lab.fixed_performance"], deadline_s)
        times: dict[str, Any] = {"load_ns": 1, "first_ns": 2, "warmup_ns": [3], "warm_ns": [4, 5]}
        who = {"runtime": "wc", "runtime_version": "1", "delegate": "", "max_steps": 0.0, "finite": True}
        memory = {"load_peak_rss_bytes": None, "peak_rss_bytes": 6}
        return {**who, **times, **memory, "conditions": {"seen": done.stdout.decode().strip()}}


def measured(spec: TargetSpec, folder: Path) -> Measurement:
    transport = AdbTransport(spec, folder)
    transport.open()
    made = onnx_bundle(folder / "model")
    with ShellDevice(transport, ShellSession(transport), Looker(spec)) as device:
        for path in made.files:
            device.push(path, digest_of(path))
        return device.bench(made.request(), 30, dict(zip(("blob", "inputs", "expected"), made.files, strict=True)))


def mode(lab: LabState) -> str:
    return inside(lab, "/system/bin/getprop lab.fixed_performance").strip()


def test_fixed_performance_is_set_meanwhile_and_set_back(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    found = measured(replace(spec, fixed_performance=True), tmp_path).conditions
    assert (found["seen"], found["fixed_performance_mode"], mode(lab)) == ("true", "on", "false")
    assert float(found["other_cpu_share"]) >= 0 and found["cpus_allowed"] == str(os.cpu_count())
    plain = measured(spec, tmp_path).conditions
    assert "fixed_performance_mode" not in plain and plain["seen"] == "false"
    inside(lab, "/system/bin/setprop lab.fixed_performance unsupported")
    refused = measured(replace(spec, fixed_performance=True), tmp_path).conditions["fixed_performance_mode"]
    inside(lab, "/system/bin/setprop lab.fixed_performance false")
    assert refused.startswith("refused: Failed to set FIXED_PERFORMANCE mode This is likely because Power HAL")


def test_a_host_that_dies_leaves_the_phone_as_it_was(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from targets.device import connect
from targets.devices.fixed_performance import fixed_performance
from targets.records import TargetSpec
device = connect({spec!r}, state=Path({str(tmp_path)!r}))
with fixed_performance(device._session, True) as said:
    print(said["fixed_performance_mode"], flush=True)
    device._session.run(["sleep", "100"], 100)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout and host.stdout.readline() == "on\n"
        assert mode(lab) == "true"
        os.kill(host.pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while mode(lab) != "false":
        assert time.monotonic() < end
        time.sleep(0.05)
