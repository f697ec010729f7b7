"""Phones as targets, as a user has them: what a lab prints, looking at one, the push of a run, a rehearsal."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from adb_client import Adb, adb_server
from labs import require_lab
from projects import DEPLOY, project
from ruamel.yaml import YAML

from pipeline.rehearsal.outcome import half_written
from targets.lab.lab import command_inside
from targets.lab.state import load_lab

NAMES = ["pixel-7-0", "phone-0"]
BLOBS = "/data/local/tmp/edge-deploy/blobs/sha256"


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    with adb_server(tmp_path_factory.mktemp("adb")) as client:
        yield client


@pytest.fixture(scope="module")
def lab() -> Iterator[tuple[str, dict[str, Any]]]:
    """A lab started from the command line, and the targets that it printed."""
    require_lab("android", "adbd")
    name = f"test-{secrets.token_hex(4)}"
    started = subprocess.run(
        [*DEPLOY, "lab", "up", "--android", "1", "--adbd", "1", "--name", name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, started.stderr
    try:
        yield name, YAML(typ="safe").load(started.stdout)["targets"]
    finally:
        subprocess.run([*DEPLOY, "lab", "down", "--name", name], check=True)


def test_a_run_brings_the_candidates_to_phones(lab: tuple[str, dict[str, Any]], adb: Adb, tmp_path: Path) -> None:
    name, targets = lab
    assert targets == {
        phone: {"transport": "adb", "host": "127.0.0.1", "port": load_lab(name).device(phone).port} for phone in NAMES
    }
    work = project(tmp_path, targets=targets)
    work.env = {key: adb.environment[key] for key in ("ANDROID_ADB_SERVER_PORT", "HOME")}
    first = work.run("--targets-from", name)
    assert [step for step in first.done if step.startswith("push")] == [f"push {phone}" for phone in NAMES], first.err
    ours = {path.name for path in work.state.rglob("*") if path.is_file()}
    first_has, second_has = ({*listed(name, phone)} & ours for phone in NAMES)  # a runner's own files are beside them
    assert first_has == second_has and len(first_has) >= 4  # two models, inputs, expected outputs

    listing = subprocess.run(
        **{**work.command(), "args": [*DEPLOY, "targets", "list"]}, capture_output=True, check=True
    )
    assert ["pixel-7-0", "adb", f"127.0.0.1:{targets['pixel-7-0']['port']}", "default"] in [
        line.split() for line in listing.stdout.splitlines()
    ]
    probe = [*DEPLOY, "targets", "probe", "pixel-7-0"]
    told = subprocess.run(**{**work.command(), "args": probe}, capture_output=True, check=True).stdout
    for words in ("Google Pixel 7", "Android 14 (API 34)", "clusters 0-3 4-5 6-7", "battery_percent"):
        assert words in told


def listed(lab: str, phone: str) -> list[str]:
    argv = command_inside(load_lab(lab), phone, ["sh", "-c", f"ls {BLOBS}"])
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize("phone", NAMES)
def test_a_file_on_a_phone_that_is_not_what_its_name_says_is_found(lab: tuple[str, dict[str, Any]], phone: str) -> None:
    found = load_lab(lab[0])
    assert half_written(found, phone) == ()
    script = f"mkdir -p {BLOBS}; echo half > {BLOBS}/{'0' * 64}"
    subprocess.run(command_inside(found, phone, ["sh", "-c", script]), check=True)
    assert half_written(found, phone) == ("0" * 64,)
    subprocess.run(command_inside(found, phone, ["rm", f"{BLOBS}/{'0' * 64}"]), check=True)
