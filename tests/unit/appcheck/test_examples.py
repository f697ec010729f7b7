"""The workflows that users copy are YAML, install the package by its name, and call the command as it is."""

import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from pipeline.cli.check import check

_ROOT = Path(__file__).resolve().parents[3]
_CI = _ROOT / "docs" / "ci"


def read(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((_CI / name).read_text(encoding="utf-8"))


def commands(name: str) -> list[str]:
    if name == "gitlab-ci.yml":
        return [str(line) for line in read(name)["model-in-app"]["script"]]
    steps = read(name)["jobs"]["check"]["steps"]
    return [step["run"] for step in steps if "run" in step]


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_the_command_is_one_that_the_package_has(name: str) -> None:
    package = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["name"]
    lines = commands(name)
    assert any(package in shlex.split(line) for line in lines)
    [called] = [shlex.split(line) for line in lines if line.startswith("deploy check")]
    parsed, rest, _ = check.make_parser(click.Context(check)).parse_args(called[2:])
    assert (parsed.get("apk") or parsed.get("aab")) and parsed["junit"] == "check.xml" and not rest


def test_what_the_workflows_upload_is_what_the_command_writes() -> None:
    steps = read("github-actions.yml")["jobs"]["check"]["steps"]
    [sarif] = [step["with"]["sarif_file"] for step in steps if "upload-sarif" in step.get("uses", "")]
    assert f"--sarif {sarif}" in " ".join(commands("github-actions.yml"))
    job = read("gitlab-ci.yml")["model-in-app"]
    assert job["artifacts"]["reports"]["junit"] == "check.xml" and job["allow_failure"]["exit_codes"] == [4]
