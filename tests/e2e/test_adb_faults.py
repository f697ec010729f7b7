"""Phones over adb under every fault of the lab, with the genuine client: what is told, how soon, and what remains."""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from adb_client import Adb, adb_server
from labs import reconnected, require_lab, running
from tiny_models import digest_of

from targets.device import connect
from targets.errors import (
    AuthRefused,
    ConnectionLost,
    DeviceError,
    DeviceTimeout,
    DiskFull,
    ReadOnly,
    Unreachable,
    UsageError,
)
from targets.lab.faults import inflict
from targets.lab.lab import Wanted, command_inside
from targets.lab.state import LabState, load_lab
from targets.records import TargetSpec

_BLOB_BYTES = 6_000_000
_STORE = "/data/local/tmp/edge-deploy"
_SOON_S = 3.0  # how long bad news may take
_MACHINE_S = 2.0  # and how much of a loaded machine's own slowness is forgiven on top
GENUINE, SCRIPTED = "pixel-7-0", "phone-0"
both = pytest.mark.parametrize("name", [GENUINE, SCRIPTED])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    with adb_server(tmp_path_factory.mktemp("adb")) as client:
        yield client


@pytest.fixture(scope="module")
def started() -> Iterator[str]:
    require_lab("android", "adbd")
    wanted = Wanted(counts={"android": 1, "adbd": 1}, disk_bytes=32_000_000)
    with running(wanted, f"test-{secrets.token_hex(4)}") as lab:
        yield lab.name


@pytest.fixture
def lab(started: str, server: Adb, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabState]:
    """Two healthy phones; what a test breaks is mended after it."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", server.environment["ANDROID_ADB_SERVER_PORT"])
    yield load_lab(started)
    for name in (GENUINE, SCRIPTED):
        inflict(load_lab(started), name, "restore")
        inside(load_lab(started), name, f"rm -rf {_STORE}/blobs")


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(_BLOB_BYTES))
    return path


def spec_of(lab: LabState, name: str) -> TargetSpec:
    return next(spec for spec in lab.target_specs() if spec.name == name)


def inside(lab: LabState, name: str, script: str) -> str:
    argv = command_inside(lab, name, ["sh", "-c", script])
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def files(lab: LabState, name: str, folder: str) -> list[str]:
    return inside(lab, name, f"cd {_STORE}/{folder} 2>/dev/null && find . -type f -size +1k").split()


def wait_until_gone(lab: LabState, name: str) -> None:
    end = time.monotonic() + 10
    while found := inside(lab, name, f"ls {_STORE}/sessions"):
        assert time.monotonic() < end, found
        time.sleep(0.1)


def recovers(lab: LabState, name: str, blob: Path, tmp_path: Path) -> None:
    """Without anybody's help the file gets there, whole, and nothing else is left."""
    with reconnected(spec_of(lab, name), tmp_path) as device:
        assert device.push(blob, digest_of(blob)) is True
        assert device.push(blob, digest_of(blob)) is False
        assert files(lab, name, "sessions") == []
    assert inside(lab, name, f"cd {_STORE}/blobs/sha256 && sha256sum *").split() == [digest_of(blob)] * 2
    wait_until_gone(lab, name)


def test_facts_of_a_phone(lab: LabState, tmp_path: Path) -> None:
    with connect(spec_of(lab, GENUINE), state=tmp_path) as device:
        facts = device.facts()
    assert (facts.arch, facts.os, facts.python) == ("aarch64", "Android 14 (API 34)", "")
    assert facts.cpu_model == "Google Pixel 7 (GS201 4x Cortex-A55 + 2x Cortex-A78 + 2x Cortex-X1)"
    assert facts.cpu_count == 8 and "asimddp" in facts.cpu_features
    assert facts.kernel == "5.10.157-android13-4" and facts.governor == "sched_pixel"
    assert facts.conditions["clusters"] == "0-3 4-5 6-7" and facts.conditions["battery_status"] == "discharging"
    assert 70 < int(facts.conditions["battery_percent"]) <= 81
    assert 20 < float(facts.conditions["battery_temperature_c"]) < 50
    assert isinstance(facts.temperature_c, float) and 20 < facts.temperature_c < 100
    assert 20_000_000 < facts.free_disk_bytes <= 32_000_000
    assert "qemu" in facts.emulated


@both
def test_cut_in_the_middle_of_a_push(lab: LabState, blob: Path, tmp_path: Path, name: str) -> None:
    with connect(spec_of(lab, name), state=tmp_path) as device:
        inflict(lab, name, "cut-after", 3_000_000)
        with pytest.raises(ConnectionLost):
            device.push(blob, digest_of(blob))
        assert device.over
    assert files(lab, name, "blobs") == []
    recovers(lab, name, blob, tmp_path)


def test_silence_in_the_middle_of_a_push_is_noticed(lab: LabState, blob: Path, tmp_path: Path) -> None:
    """adb itself would wait for ever."""
    name = GENUINE
    with connect(spec_of(lab, name), state=tmp_path) as device:
        inflict(lab, name, "blackhole-after", 3_000_000)
        start = time.monotonic()
        with pytest.raises(ConnectionLost):
            device.push(blob, digest_of(blob))
        assert time.monotonic() - start < 8 + _MACHINE_S
    assert time.monotonic() - start < 10 + _MACHINE_S  # closing does not wait either
    assert files(lab, name, "blobs") == [] and files(lab, name, "sessions") != []
    inflict(lab, name, "restore")
    recovers(lab, name, blob, tmp_path)


def test_a_program_behind_a_dead_link_is_given_up(lab: LabState, tmp_path: Path) -> None:
    with connect(spec_of(lab, SCRIPTED), state=tmp_path) as device:
        inflict(lab, SCRIPTED, "blackhole")
        start = time.monotonic()
        with pytest.raises((ConnectionLost, DeviceTimeout)):
            device.facts()
        assert time.monotonic() - start < 8 + _MACHINE_S


def test_a_phone_that_is_silent_when_connected_to(lab: LabState, tmp_path: Path) -> None:
    """The server still believes in its connection, as after a phone has left the network."""
    spec = replace(spec_of(lab, GENUINE), connect_timeout_s=2.0)
    connect(spec, state=tmp_path).close()
    inflict(lab, GENUINE, "blackhole")
    start = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        connect(spec, state=tmp_path)
    assert caught.value.transient and caught.value.hint
    assert time.monotonic() - start < 2 + 2 + 2 + _MACHINE_S


@both
@pytest.mark.parametrize(("fault", "kind"), [("full", DiskFull), ("readonly", ReadOnly)])
def test_a_disk_that_takes_nothing(
    lab: LabState, blob: Path, tmp_path: Path, name: str, fault: str, kind: type[DeviceError]
) -> None:
    with connect(spec_of(lab, name), state=tmp_path) as device:
        inflict(lab, name, fault)
        with pytest.raises(kind) as caught:
            device.push(blob, digest_of(blob))
        assert caught.value.hint and _STORE in caught.value.hint
    inflict(lab, name, "restore")
    recovers(lab, name, blob, tmp_path)


def test_a_phone_that_has_not_allowed_this_computer(lab: LabState, blob: Path, tmp_path: Path) -> None:
    inflict(lab, SCRIPTED, "unauthorized")
    start = time.monotonic()
    with pytest.raises(AuthRefused, match="has not allowed this computer") as caught:
        connect(spec_of(lab, SCRIPTED), state=tmp_path)
    assert time.monotonic() - start < _SOON_S + _MACHINE_S
    assert "Allow USB debugging" in caught.value.hint and not caught.value.transient
    inflict(lab, SCRIPTED, "allow")  # its user answers the question, which is still on the screen
    recovers(lab, SCRIPTED, blob, tmp_path)


def test_a_phone_that_does_not_finish_the_greeting(lab: LabState, blob: Path, tmp_path: Path) -> None:
    inflict(lab, SCRIPTED, "offline")
    start = time.monotonic()
    with pytest.raises(Unreachable, match="offline") as caught:
        connect(spec_of(lab, SCRIPTED), state=tmp_path)
    assert time.monotonic() - start < _SOON_S + _MACHINE_S
    assert "wireless debugging off and on" in caught.value.hint
    inflict(lab, SCRIPTED, "restore")
    recovers(lab, SCRIPTED, blob, tmp_path)


@both
def test_a_phone_where_nothing_listens(lab: LabState, blob: Path, tmp_path: Path, name: str) -> None:
    """`adb connect` ends with 0 then."""
    inflict(lab, name, "cut")
    inflict(lab, name, "refuse")
    start = time.monotonic()
    with pytest.raises(Unreachable, match="nothing listens at") as caught:
        connect(spec_of(lab, name), state=tmp_path)
    assert time.monotonic() - start < _SOON_S + _MACHINE_S
    assert "adb tcpip 5555" in caught.value.hint
    inflict(lab, name, "restore")
    recovers(lab, name, blob, tmp_path)


@both
def test_reboot_in_the_middle_of_a_push(lab: LabState, blob: Path, tmp_path: Path, name: str) -> None:
    reboot = threading.Thread(target=inflict, args=(lab, name, "reboot", 0.5))
    with connect(spec_of(lab, name), state=tmp_path) as device:
        inflict(lab, name, "rate", 2_000_000)
        with pytest.raises(ConnectionLost):
            device.push(blob, digest_of(blob), lambda *_: reboot.ident or reboot.start())
    reboot.join()
    inflict(load_lab(lab.name), name, "restore")
    recovers(load_lab(lab.name), name, blob, tmp_path)


@both
def test_a_host_that_is_killed_leaves_nothing_on_the_phone(lab: LabState, tmp_path: Path, name: str) -> None:
    code = f"""
from pathlib import Path
from targets.device import connect
from targets.records import TargetSpec
device = connect({spec_of(lab, name)!r}, state=Path({str(tmp_path)!r}))
print("connected", flush=True)
device._session.run(["sleep", "100"], 100)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout and host.stdout.readline() == "connected\n"
        while not inside(lab, name, f"cat {_STORE}/sessions/*/*.pid 2>/dev/null || true"):
            time.sleep(0.05)
        assert inside(lab, name, f"ls {_STORE}/sessions")
        os.kill(host.pid, signal.SIGKILL)
    wait_until_gone(lab, name)
    assert "sleep 100\n" not in inside(lab, name, "ps -A -o ARGS 2>/dev/null || ps -A -o args")


def test_whichever_is_attached_must_be_the_only_one(
    lab: LabState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anything = TargetSpec(name="any", transport="adb")
    serials = {name: f"127.0.0.1:{lab.device(name).port}" for name in (GENUINE, SCRIPTED)}
    with adb_server(tmp_path) as fresh:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", fresh.environment["ANDROID_ADB_SERVER_PORT"])
        with pytest.raises(Unreachable, match="no device is attached"):
            connect(anything, state=tmp_path)
        fresh.connect(serials[GENUINE])
        with connect(anything, state=tmp_path) as device:
            assert device.facts().arch == "aarch64"
        with pytest.raises(Unreachable, match=f"attached: {serials[GENUINE]}") as caught:
            connect(replace(anything, serial=serials[SCRIPTED]), state=tmp_path)
        assert "write `host:` and `port:`" in caught.value.hint
        fresh.connect(serials[SCRIPTED])
        with pytest.raises(UsageError, match="several devices are attached") as several:
            connect(anything, state=tmp_path)
        assert "set `serial:` of target any" in several.value.hint
        with connect(replace(anything, serial=serials[SCRIPTED]), state=tmp_path) as device:
            assert device.facts().arch == os.uname().machine


def test_twenty_phones_at_once(server: Adb, blob: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_lab("android", "adbd")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", server.environment["ANDROID_ADB_SERVER_PORT"])
    digest = digest_of(blob)

    def push(spec: TargetSpec) -> tuple[bool, bool]:
        with connect(replace(spec, connect_timeout_s=60.0), state=tmp_path) as device:
            return device.push(blob, digest), device.push(blob, digest)

    wanted = Wanted(counts={"android": 5, "adbd": 15}, disk_bytes=32_000_000)
    with running(wanted, f"test-{secrets.token_hex(4)}") as many, ThreadPoolExecutor(20) as pool:
        assert list(pool.map(push, many.target_specs())) == [(True, False)] * 20
