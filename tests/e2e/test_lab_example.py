"""The shipped example through the device lab: SSH hosts, an ARM64 board and a phone, in both formats."""

import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from adb_client import adb_server, require_adb
from labs import require_lab, running
from projects import DEPLOY

from targets.lab.lab import Wanted
from targets.lab.state import LabState

RECIPES = ("litert-int8", "onnx-int8")


@pytest.fixture
def lab() -> Iterator[LabState]:
    require_lab("ssh", "arm64", "android")
    require_adb()
    with running(Wanted(counts={"ssh": 3, "arm64": 1, "android": 1}), f"test-{secrets.token_hex(4)}") as lab:
        yield lab


def test_the_example_passes_on_hosts_and_answers_on_a_board_and_a_phone_to_the_bit(
    lab: LabState, tmp_path: Path
) -> None:
    subprocess.run([*DEPLOY, "init", str(tmp_path / "example")], check=True, capture_output=True)
    chosen = [word for name in RECIPES for word in ("--recipe", name)]
    argv = [*DEPLOY, "run", "--targets-from", lab.name, *chosen, "--json"]
    folder = tmp_path / "example"
    with adb_server(tmp_path) as adb:
        done = subprocess.run(
            argv, cwd=folder, env=adb.environment, capture_output=True, text=True, timeout=600, check=False
        )
    # The example has a latency budget, which an emulated board neither holds nor breaks: everything else is judged.
    assert done.returncode == 4, done.stderr
    found = json.loads(done.stdout)
    hosts = [device.name for device in lab.devices if device.kind == "ssh"]
    emulated = [device.name for device in lab.devices if device.kind in ("arm64", "android")]
    assert all(found["chosen_by_target"][host] == "litert-int8" for host in hosts)
    for candidate in found["candidates"]:
        for host in hosts:
            assert candidate["targets"][host]["verdict"] == "pass"
            assert candidate["targets"][host]["answer"]["max_steps"] == 0
        for name in emulated:
            there = candidate["targets"][name]
            assert there["verdict"] == "inconclusive" and "latency cannot be judged here" in there["reason"], there
            if candidate["recipe"].endswith("-int8"):
                assert there["answer"]["max_steps"] == 0, (name, candidate["recipe"])
