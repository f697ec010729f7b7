"""Releases into the folder of an app that is debuggable, by `run-as`, on a phone of the lab that has such apps."""

import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from adb_client import adb_server
from labs import require_lab, running
from releases import make_release

from targets.device import connect
from targets.errors import InputError, NotSupported
from targets.lab.lab import Wanted, command_inside
from targets.lab.state import LabState
from targets.records import TargetSpec

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
