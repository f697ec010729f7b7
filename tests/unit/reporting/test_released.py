"""What `deploy check` takes from the report of a run."""

from dataclasses import replace
from pathlib import Path

import pytest
from example import example, two_devices

from pipeline.appcheck.asked import released
from pipeline.errors import InputError
from pipeline.records import Report
from pipeline.reporting.schema import report_json


def written(folder: Path, report: Report) -> Path:
    (folder / "report.json").write_bytes(report_json(report))
    return folder


def test_the_choice_and_the_devices(tmp_path: Path) -> None:
    found = released(written(tmp_path, two_devices()))
    choice = found.choice()
    assert choice is not None and choice.recipe == found.chosen == "litert-int8"
    assert (choice.verdict, choice.targets, choice.file) == (
        "pass",
        ("local", "pi4-emulated"),
        "models/litert-int8.tflite",
    )
    assert "" not in found.candidates  # a refused recipe has no bytes


def test_the_same_bytes_of_two_recipes_are_those_of_the_chosen_one(tmp_path: Path) -> None:
    report = example()
    [chosen] = [candidate for candidate in report.candidates if candidate.recipe == report.chosen]
    twins = tuple(replace(c, sha256=chosen.sha256) if c.sha256 else c for c in report.candidates)
    found = released(written(tmp_path, replace(report, candidates=twins)))
    assert [candidate.recipe for candidate in found.candidates.values()] == [report.chosen]


def test_a_run_without_a_choice(tmp_path: Path) -> None:
    none = replace(example(), status="fail", chosen=None, chosen_by_target={"local": None})
    assert released(written(tmp_path, none)).choice() is None


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 1', b"[1e999]"])
def test_a_damaged_report_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(InputError, match=r"report\.json: damaged Report record") as refused:
        released(tmp_path)
    assert "deploy run" in refused.value.hint
