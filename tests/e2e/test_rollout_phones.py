"""`deploy push` to devices without Python; and what is asked of any device before a byte is sent: fit, and keys.

The phones are folders of this machine behind the lab's Python adb daemon, phones of the lab with it, and an emulated
ARM64 one behind the genuine one; models run there by our C programs, over the genuine adb client.
"""

import json
import platform
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from adb_client import adb_server
from int8_models import int8_tflite_bundle
from labs import require_lab, running
from phones import phone
from projects import DEPLOY, Project, project
from release_files import write_release, wrong_ones
from shells import require_compiler
from ssh_targets import spec_for
from sshd import Sshd
from tiny_models import Bundle, onnx_bundle, tflite_bundle

from pipeline.release.keys import load_private_key, make_keys, public_path_of
from targets.lab.faults import inflict
from targets.lab.lab import Wanted, command_inside
from targets.lab.state import LabState

PHONES = 20
STORE = "/data/local/tmp/edge-deploy"
CUT_BYTES = 5_000_000  # within the libraries that a first push brings
FAST: dict[str, Any] = {"soak": 0, "retry": "0.2 s", "compare_blocks": 0, "retries": 2, "waves": [1, "100 %"]}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two right releases and a wrong one, all signed; one that nobody has signed, and one that fits nothing."""
    folder = tmp_path_factory.mktemp("releases")
    make_keys(folder / "release.key")
    key = load_private_key(folder / "release.key", lambda: "")
    good = tflite_bundle(folder / "good")
    write_release(folder / "1.release", {"default": good}, sequence=1, key=key)
    write_release(folder / "2.release", {"default": onnx_bundle(folder / "other")}, sequence=2, key=key)
    write_release(folder / "wrong.release", {"default": wrong_ones(folder, good)["labels"]}, sequence=3, key=key)
    write_release(folder / "unsigned.release", {"default": good}, sequence=4)
    write_release(folder / "4.release", {"default": int8_tflite_bundle(folder / "int8")}, sequence=4, key=key)
    write_release(folder / "future.release", {"default": of_the_future(folder)}, sequence=5, key=key)
    return folder


def of_the_future(folder: Path) -> Bundle:
    made = onnx_bundle(folder / "future")
    model = onnx.load(made.model)
    model.opset_import[0].version = 99
    onnx.save(model, made.model)
    return made


def work_on(folder: Path, releases: Path, targets: dict[str, Any], **rollout: Any) -> Project:
    trusted = [str(public_path_of(releases / "release.key"))]
    return project(folder, targets=targets, rollout={**FAST, "trusted": trusted, **rollout}, measure={"warm": "40 ms"})


def deploy(work: Project, *words: str) -> "subprocess.CompletedProcess[str]":
    command = {**work.command(), "args": [*DEPLOY, *words]}
    done = subprocess.run(**command, capture_output=True, check=False, timeout=600)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def push(work: Project, release: Path, status: int) -> dict[str, Any]:
    done = deploy(work, "push", "--release", str(release), "--json")
    assert done.returncode == status, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def states(result: dict[str, Any]) -> dict[str, str]:
    return {member["device"]: member["state"] for member in result["members"]}


def test_what_does_not_fit_is_refused_before_a_byte_is_sent(tmp_path: Path, releases: Path) -> None:
    work = work_on(tmp_path, releases, {"here": {"transport": "local"}})
    root = work.state / "local-device"
    planned = deploy(work, "plan", "--release", str(releases / "future.release"), "--json")
    (device,) = json.loads(planned.stdout)["devices"]
    assert (planned.returncode, device["state"], device["code"]) == (3, "failed", "fit"), device
    assert "opset" in device["reason"] and device["hint"]
    (member,) = push(work, releases / "future.release", 1)["members"]
    assert (member["state"], member["code"], member["bytes_on_wire"]) == ("failed", "fit", 0)
    assert not (root / "releases").exists() and not (root / "trust").exists()
    assert states(push(work, releases / "1.release", 0)) == {"here": "confirmed"}, "and what fits is not"


def test_keys_are_given_and_changed_by_hand(tmp_path: Path, releases: Path) -> None:
    work = work_on(tmp_path, releases, {"here": {"transport": "local"}})
    first, following, strange = (tmp_path / name for name in ("first.key", "following.key", "strange.key"))
    given = {key: make_keys(key).raw.hex() for key in (first, following, strange)}

    def trust(key: Path, *words: str) -> "subprocess.CompletedProcess[str]":
        return deploy(work, "targets", "trust-key", str(public_path_of(key)), "here", *words)

    def kept() -> set[str]:
        return {file.name for file in (work.state / "local-device" / "trust").iterdir()}

    assert trust(first).returncode == 0 and kept() == {given[first]}
    assert "as before" in trust(first).stdout
    for words in ((), ("--signed-by", str(strange))):
        refused = trust(following, *words)
        assert refused.returncode == 3 and "`--signed-by`" in refused.stderr, refused
        assert kept() == {given[first]}
    (row,) = json.loads(trust(following, "--signed-by", str(first), "--json").stdout)
    assert row["added"] and set(row["trusts"]) == kept() == {given[first], given[following]}

    (work.state / "local-device" / "trust" / given[first]).unlink()  # its owner revokes the one before
    (member,) = push(work, releases / "1.release", 3)["members"]
    assert (member["state"], member["code"]) == ("failed", "signature"), "another key's release"


def test_a_loop_of_reconciling_brings_a_device_that_comes_back_and_ends_in_order(
    tmp_path: Path, releases: Path, sshd: Sshd
) -> None:
    root = tmp_path / "device"
    spec = spec_for(sshd, root)
    named = ("transport", "host", "port", "identity_file", "known_hosts", "python", "root")
    work = work_on(tmp_path, releases, {"pi": {name: getattr(spec, name) for name in named}}, soak="0.2 s")
    sshd.stop()
    assert states(push(work, releases / "1.release", 3)) == {"pi": "pending"}
    command = {**work.command(), "args": [*DEPLOY, "reconcile", "--every", "1s", "--json"]}
    with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as loop:
        try:
            assert loop.stdout and loop.stderr
            assert loop.stdout.readline()
            sshd.__enter__()
            deadline_s = time.monotonic() + 60
            while not (root / "confirmed").exists() and time.monotonic() < deadline_s:
                time.sleep(0.1)
            loop.send_signal(signal.SIGTERM)
            said = loop.stderr.read()
            assert loop.wait(30) == 130, said
            assert "Traceback" not in said
        finally:
            loop.kill()
    (row,) = json.loads(deploy(work, "status", "--json").stdout)
    assert (row["state"], bool(row["installed"])) == ("current", True), row


def test_the_first_push_leaves_a_device_that_can_verify(tmp_path: Path, releases: Path) -> None:
    careless = work_on(tmp_path, releases, {"here": {"transport": "local"}}, trusted=[])
    root = careless.state / "local-device"
    assert states(push(careless, releases / "1.release", 0)) == {"here": "confirmed"}
    assert not (root / "trust").exists()
    (row,) = json.loads(deploy(careless, "status", "--json").stdout)
    assert "takes unsigned releases" in row["note"]

    work = work_on(tmp_path, releases, {"here": {"transport": "local"}})
    done = deploy(work, "push", "--release", str(releases / "1.release"))
    assert done.returncode == 0 and "here: trusts ed25519:" in done.stderr, done.stderr
    assert len(list((root / "trust").iterdir())) == 1, "also a device that had the release already"
    (row,) = json.loads(deploy(work, "status", "--json").stdout)
    assert row["note"] == ""
    (member,) = push(careless, releases / "unsigned.release", 3)["members"]
    assert (member["state"], member["code"], member["bytes_on_wire"]) == ("failed", "signature", 0)
    assert states(push(work, releases / "1.release", 0)) == {"here": "unchanged"}


def of_phones(work: Project, releases: Path, current: Any) -> None:
    """Push, push again, a wrong one, a second one, back."""
    first = push(work, releases / "1.release", 0)
    assert set(states(first).values()) == {"confirmed"}
    names = sorted(states(first))
    assert {current(name) for name in names} == {first["release"]}
    again = push(work, releases / "1.release", 0)
    assert set(states(again).values()) == {"unchanged"}
    wrong = push(work, releases / "wrong.release", 1)
    assert (wrong["state"], wrong["members"][0]["code"]) == ("stopped", "answer"), wrong
    assert sorted(states(wrong).values()) == ["failed", *["waiting"] * (len(names) - 1)]
    assert {current(name) for name in names} == {first["release"]}
    second = push(work, releases / "2.release", 0)
    assert set(states(second).values()) == {"confirmed"}
    assert {current(name) for name in names} == {second["release"]}
    back = deploy(work, "rollback", "--json")
    assert back.returncode == 0, back.stderr + back.stdout
    assert {current(name) for name in names} == {first["release"]}
    rows = json.loads(deploy(work, "status", "--json").stdout)
    assert {row["state"] for row in rows} == {"current"}
    assert all(row["note"] == "signatures are checked by the host only: this device has no Python" for row in rows)


def test_a_rollout_to_phones(tmp_path: Path, releases: Path) -> None:
    require_compiler(platform.machine())
    with phone(tmp_path) as (adb, port):
        at = {"transport": "adb", "host": "127.0.0.1", "port": port}
        targets = {name: {**at, "root": str(tmp_path / name)} for name in ("one", "two")}
        work = work_on(tmp_path / "work", releases, targets)
        work.env = {key: adb.environment[key] for key in ("ANDROID_ADB_SERVER_PORT", "HOME")}
        of_phones(work, releases, lambda name: (tmp_path / name / "current").readlink().name)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabState]:
    require_lab("android", "adbd")
    require_compiler("aarch64")
    require_compiler(platform.machine())
    with running(Wanted(counts={"adbd": PHONES - 1, "android": 1}), f"test-{secrets.token_hex(4)}") as started:
        yield started


def test_a_rollout_to_twenty_phones(tmp_path: Path, releases: Path, lab: LabState) -> None:
    """Nineteen with the scripted daemon, of which one loses its link on the way, and an emulated one with Android's."""

    def current(name: str) -> str:
        script = f"readlink {STORE}/current || cat {STORE}/current"
        argv = command_inside(lab, name, ["sh", "-c", script])
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return done.stdout.strip().rpartition("/")[2]

    with adb_server(tmp_path) as adb:
        targets = {spec.name: {"transport": "adb", "host": spec.host, "port": spec.port} for spec in lab.target_specs()}
        # Twenty devices share this machine: what is slow here is no fault of theirs.
        targets = {name: {**target, "connect_timeout": 60} for name, target in targets.items()}
        work = work_on(tmp_path / "work", releases, targets, waves=[1, "50 %", "100 %"])
        work.env = {key: adb.environment[key] for key in ("ANDROID_ADB_SERVER_PORT", "HOME")}
        inflict(lab, "phone-7", "cut-after", CUT_BYTES)
        first = push(work, releases / "1.release", 0)
        assert states(first) == dict.fromkeys(targets, "confirmed")
        assert {current(name) for name in targets} == {first["release"]}
        wrong = push(work, releases / "wrong.release", 1)
        assert sorted(states(wrong).values()) == ["failed", *["waiting"] * (PHONES - 1)]
        second = push(work, releases / "4.release", 0)
        assert states(second) == dict.fromkeys(targets, "confirmed")
        assert deploy(work, "rollback", "--json").returncode == 0
        assert {current(name) for name in targets} == {first["release"]}
        rows = json.loads(deploy(work, "status", "--json").stdout)
        assert {row["device"]: row["state"] for row in rows} == dict.fromkeys(targets, "current")
