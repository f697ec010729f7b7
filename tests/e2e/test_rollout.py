"""`deploy push` and what goes with it, as a user does it, on SSH hosts and the ARM64 board of a lab.

What is on a device is read from its own disk, from inside; what it answers is asked of the model itself.
"""

import json
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labs import require_lab, running
from projects import DEPLOY, Project, project
from release_files import write_release, wrong_ones
from tiny_models import onnx_bundle, tflite_bundle

from targets.lab.faults import inflict
from targets.lab.lab import Wanted, command_inside
from targets.lab.state import LabState

HOSTS = 4
FAST: dict[str, Any] = {"soak": 0, "retry": "0.2 s", "compare_blocks": 0, "retries": 2}


@pytest.fixture(scope="module")
def lab() -> Iterator[LabState]:
    require_lab("ssh", "arm64")
    with running(Wanted(counts={"ssh": HOSTS, "arm64": 1}), f"test-{secrets.token_hex(4)}") as started:
        yield started


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Releases of one network: 1 and 2 are right, the others wrong in one way each."""
    folder = tmp_path_factory.mktemp("releases")
    good = tflite_bundle(folder / "good")
    write_release(folder / "1.release", {"default": good}, sequence=1)
    write_release(folder / "2.release", {"default": onnx_bundle(folder / "other")}, sequence=2)
    for number, (name, wrong) in enumerate(wrong_ones(folder, good).items(), 3):
        write_release(folder / f"{name}.release", {"default": wrong}, sequence=number)
    return folder


@pytest.fixture
def work(tmp_path: Path, lab: LabState) -> Iterator[Project]:
    """A project with a journal of its own, and devices with nothing on them."""
    for device in lab.devices:
        script = "rm -rf /home/pi/.edge-deploy/releases /home/pi/.edge-deploy/current /home/pi/.edge-deploy/previous "
        script += "/home/pi/.edge-deploy/confirmed /home/pi/.edge-deploy/floor.json /home/pi/.edge-deploy/lease*"
        inside(lab, device.name, script)
    yield fast(project(tmp_path))


def fast(made: Project, **rollout: Any) -> Project:
    made.config |= {"rollout": {**FAST, **rollout}, "measure": {"warm": "40 ms"}}
    made.write()
    return made


def inside(lab: LabState, name: str, script: str) -> str:
    done = subprocess.run(command_inside(lab, name, ["sh", "-c", script]), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def installed(lab: LabState, name: str) -> str:
    """What the device's own disk says it uses, "" for nothing."""
    return inside(lab, name, "readlink /home/pi/.edge-deploy/current || true").rpartition("/")[2]


def everywhere(lab: LabState) -> set[str]:
    return {installed(lab, device.name) for device in lab.devices}


def deploy(work: Project, lab: LabState, *words: str) -> "subprocess.CompletedProcess[str]":
    command = work.command()
    arguments = [*DEPLOY, *words, "--targets-from", lab.name]
    return subprocess.run(**{**command, "args": arguments}, capture_output=True, check=False, timeout=300)


def pushed(work: Project, lab: LabState, release: Path, status: int, *words: str) -> dict[str, Any]:
    done = deploy(work, lab, "push", "--release", str(release), "--json", *words)
    assert done.returncode == status, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def states(result: dict[str, Any]) -> dict[str, str]:
    return {member["device"]: member["state"] for member in result["members"]}


def test_a_release_goes_out_in_waves_and_comes_back(work: Project, lab: LabState, models: Path) -> None:
    names = [device.name for device in lab.devices]
    planned = deploy(work, lab, "plan", "--release", str(models / "1.release"), "--json")
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["waves"][0] == ["pi-0", names[-1]], "each kind of device has its own canary"
    assert everywhere(lab) == {""}, "a plan changes nothing"

    first = pushed(work, lab, models / "1.release", 0)
    assert set(states(first).values()) == {"confirmed"} and [w["devices"] for w in first["waves"]] == plan["waves"]
    assert everywhere(lab) == {first["release"]}
    again = pushed(work, lab, models / "1.release", 0)
    assert set(states(again).values()) == {"unchanged"} and not again["differences"]

    pinned = deploy(work, lab, "pin", "pi-3")
    assert pinned.returncode == 0 and "pinned to net 1" in pinned.stdout
    second = pushed(work, lab, models / "2.release", 0)
    assert states(second).pop("pi-3") == "pinned" and installed(lab, "pi-3") == first["release"]
    assert installed(lab, "pi-0") == installed(lab, names[-1]) == second["release"]
    down = deploy(work, lab, "push", "--release", str(models / "1.release"), "--target", "pi-0", "--json")
    assert down.returncode == 3 and json.loads(down.stdout)["members"][0]["code"] == "downgrade"

    back = deploy(work, lab, "rollback", "--target", "pi-0", "--target", names[-1], "--json")
    assert back.returncode == 0, back.stderr
    assert installed(lab, "pi-0") == installed(lab, names[-1]) == first["release"]
    assert deploy(work, lab, "rollback", "--target", "pi-0").returncode == 0
    assert installed(lab, "pi-0") == first["release"], "the same command again is not one step further"
    told = {row["device"]: row for row in json.loads(deploy(work, lab, "status", "--json").stdout)}
    assert {name: row["state"] for name, row in told.items()} == {**dict.fromkeys(names, "current"), "pi-3": "pinned"}
    assert "answers" in told["pi-0"]["reason"] and told["pi-1"]["installed"] == second["release"]


@pytest.mark.parametrize("name", ["labels", "preprocessing", "truncated", "runtime"])
def test_a_wrong_release_never_leaves_the_canary(name: str, work: Project, lab: LabState, models: Path) -> None:
    first = pushed(work, lab, models / "1.release", 0, "--target", "pi-0", "--target", "pi-1")
    hosts = [word for number in range(HOSTS) for word in ("--target", f"pi-{number}")]
    wrong = pushed(work, lab, models / f"{name}.release", 1, *hosts)
    assert wrong["state"] == "stopped"
    assert states(wrong) == {"pi-0": "failed", "pi-1": "waiting", "pi-2": "waiting", "pi-3": "waiting"}
    code = {"labels": "answer", "preprocessing": "answer"}.get(name, "")
    assert not code or wrong["members"][0]["code"] == code, wrong["members"][0]
    assert installed(lab, "pi-0") == installed(lab, "pi-1") == first["release"]
    touched = [number for number in range(HOSTS) if wrong["release"] in _releases(lab, f"pi-{number}")]
    assert touched == [0], "no other device was sent anything"
    assert wrong["members"][0]["reason"] and wrong["members"][0]["hint"] is not None


def _releases(lab: LabState, name: str) -> str:
    return inside(lab, name, "ls /home/pi/.edge-deploy/releases 2>/dev/null || true")


def test_a_health_command_that_says_no_brings_the_device_back(
    work: Project, tmp_path: Path, lab: LabState, models: Path
) -> None:
    program = "#!/bin/sh\\ngrep -q 'sequence.:1[^0-9]' $EDGE_DEPLOY_CURRENT/manifest.json\\n"
    inside(lab, "pi-0", f'printf "{program}" >/home/pi/well; chmod 755 /home/pi/well'.replace("$", "\\$"))
    (spec,) = (one for one in lab.target_specs() if one.name == "pi-0")
    target = {key: getattr(spec, key) for key in ("host", "port", "user", "identity_file", "known_hosts", "python")}
    made = fast(
        project(tmp_path / "one", targets={"pi-0": {**target, "ssh_config": "/dev/null", "health": ["/home/pi/well"]}})
    )

    def push(number: int) -> tuple[int, dict[str, Any]]:
        arguments = [*DEPLOY, "push", "--release", str(models / f"{number}.release"), "--json"]
        done = subprocess.run(**{**made.command(), "args": arguments}, capture_output=True, check=False)
        return done.returncode, json.loads(done.stdout)

    code, first = push(1)
    assert code == 0, first
    code, second = push(2)
    (member,) = second["members"]
    assert (code, member["state"], member["code"]) == (1, "reverted", "health"), member
    assert "back on net 1, which answers" in member["reason"]
    assert installed(lab, "pi-0") == first["release"]


def test_devices_that_were_off_get_it_later(work: Project, lab: LabState, models: Path) -> None:
    inflict(lab, "pi-2", "refuse")
    try:
        first = pushed(work, lab, models / "1.release", 3, "--target", "pi-*")
        assert states(first)["pi-2"] == "pending" and states(first)["pi-3"] == "confirmed"
        status = deploy(work, lab, "status", "--target", "pi-2", "--json")
        assert status.returncode == 3 and json.loads(status.stdout)[0]["state"] == "pending"
    finally:
        inflict(lab, "pi-2", "restore")
    # Somebody has been at this one by hand: the device is right, the difference is told, and then mended.
    inside(lab, "pi-1", "rm /home/pi/.edge-deploy/current /home/pi/.edge-deploy/confirmed")
    done = deploy(work, lab, "reconcile", "--json")
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert states(result) == {"pi-1": "confirmed", "pi-2": "confirmed"}
    assert [one["device"] for one in result["differences"]] == ["pi-1"]
    assert installed(lab, "pi-1") == installed(lab, "pi-2") == first["release"]
    assert json.loads(deploy(work, lab, "reconcile", "--json").stdout) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_push_is_gone_on_with(how: signal.Signals, work: Project, lab: LabState, models: Path) -> None:
    command = work.command()
    arguments = [*DEPLOY, "push", "--release", str(models / "1.release"), "--targets-from", lab.name, "--json"]
    with subprocess.Popen(**{**command, "args": arguments}, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("wave 2:"):
                break
        time.sleep(0.3)  # into the middle of it
        process.send_signal(how)
        rest = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if how == signal.SIGINT else -how), rest
    assert "Traceback" not in rest
    result = pushed(work, lab, models / "1.release", 0)
    assert set(states(result).values()) == {"confirmed"}
    assert len({member["wave"] for member in result["members"]}) >= 3, "it went on, it did not begin again"
    assert everywhere(lab) == {result["release"]}
    activations = journal_of(
        work, "SELECT device, count(*) FROM steps WHERE step='activate' AND outcome='ok' GROUP BY 1"
    )
    assert all(count == 1 for _, count in activations), activations


def journal_of(work: Project, query: str) -> list[tuple[Any, ...]]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(work.state / "journal.db")) as connection:
        return connection.execute(query).fetchall()
