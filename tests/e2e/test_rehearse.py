"""`deploy rehearse` as a user does it: faults while a run is under way, everything mended, the same run again."""

import json
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from labs import require_lab, running, surroundings
from projects import DEPLOY, Project, project

from pipeline.rehearsal.outcome import half_written
from targets.lab.lab import Wanted, command_inside, down
from targets.lab.state import lab_names, load_lab

SCHEDULE = """
lab: { ssh: 5, disk: 64 MB }
seed: 3
faults:
  - { on: pi-1, fault: full, when: { step: push } }
  - { on: pi-2, fault: kill, when: { step: measure, after: 300 ms } }
  - { on: pi-3, fault: reboot=0.5s, when: { step: push, bytes: 3 kB } }
  - { on: pi-4, fault: blackhole, when: { step: measure }, restore_after: 1 s }
"""


@pytest.fixture(autouse=True)
def capable() -> None:
    require_lab("ssh")


def rehearse(work: Project, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = work.command()
    return subprocess.run(**{**command, "args": [*DEPLOY, "rehearse", *arguments]}, capture_output=True, check=False)


def test_every_device_recovers_and_what_it_did_meanwhile_is_told(tmp_path: Path) -> None:
    before = surroundings()
    work = project(tmp_path)
    (tmp_path / "faults.yaml").write_text(SCHEDULE)
    done = rehearse(work, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["verdict"] == "pass"
    assert all(one["at_s"] is not None and not one["error"] for one in found["happened"]), found["happened"]
    codes = {name: [failed["code"] for failed in run["failures"]] for name, run in found["during"].items()}
    assert codes["pi-1"] == ["disk-full"]
    assert codes["pi-2"] == ["agent"] and found["during"]["pi-2"]["answers"] < 2
    assert codes["pi-3"] and set(codes["pi-3"]) <= {"connection-lost", "unreachable", "agent"}
    assert codes["pi-0"] == [] and found["during"]["pi-0"]["answers"] == 2
    assert all(run["answers"] == 2 and not run["failures"] for run in found["after"].values())
    assert found["half_written"] == {f"pi-{number}": [] for number in range(5)}
    assert surroundings() == before
    assert not [name for name in lab_names() if name.startswith("rehearsal-")]  # its lab has gone with it


def test_a_push_cut_at_its_start_and_a_fault_that_comes_too_late(tmp_path: Path) -> None:
    work = project(tmp_path)
    (tmp_path / "faults.yaml").write_text(
        "lab: { ssh: 2 }\nfaults:\n  - { on: pi-0, fault: cut-after=1kB, when: { step: push } }\n"
        "  - { on: pi-1, fault: full, when: { step: push, after: 1 h } }\n"
    )
    done = rehearse(work, "--json")
    assert done.returncode == 4, done.stderr  # what was to be tried on pi-1 was not
    found = json.loads(done.stdout)
    assert found["verdict"] == "inconclusive"
    codes = {failed["code"] for failed in found["during"]["pi-0"]["failures"]}
    assert codes and codes <= {"connection-lost", "unreachable"}
    assert [one["at_s"] is None for one in found["happened"]] == [False, True]
    assert found["half_written"] == {"pi-0": [], "pi-1": []}


def test_a_rehearsal_that_is_killed_takes_its_lab_along(tmp_path: Path) -> None:
    work = project(tmp_path)
    (tmp_path / "faults.yaml").write_text(SCHEDULE)
    command = work.command()
    starting = subprocess.Popen([*DEPLOY, "rehearse"], cwd=command["cwd"], env=command["env"], stderr=subprocess.PIPE)
    with starting:
        assert starting.stderr
        for line in starting.stderr:
            if b"under faults" in line:
                break
        starting.kill()
    name = f"rehearsal-{starting.pid}"
    keeper = load_lab(name).keeper
    end = time.monotonic() + 10
    while keeper.alive():
        assert time.monotonic() < end
        time.sleep(0.05)
    down(name)


def test_the_plan_is_shown_without_starting_anything(tmp_path: Path) -> None:
    work = project(tmp_path)
    (tmp_path / "faults.yaml").write_text(SCHEDULE)
    done = rehearse(work, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "when push begins, after 3.00 kB" in done.stdout and "pi-3" in done.stdout
    assert not [name for name in lab_names() if name.startswith("rehearsal-")]
    (tmp_path / "faults.yaml").write_text("faults:\n  - { on: pi-0, fault: cut }\n")
    refused = rehearse(work)
    assert refused.returncode == 2 and "which devices to start" in refused.stderr


def test_a_file_that_is_not_what_its_name_says_is_found() -> None:
    with running(Wanted(counts={"ssh": 1}), f"test-{secrets.token_hex(4)}") as lab:
        assert half_written(load_lab(lab.name), "pi-0") == ()
        blobs = "/home/pi/.edge-deploy/blobs/sha256"
        script = f"mkdir -p {blobs}; echo half > {blobs}/{'0' * 64}"
        subprocess.run(command_inside(lab, "pi-0", ["sh", "-c", script]), check=True)
        assert half_written(load_lab(lab.name), "pi-0") == ("0" * 64,)
