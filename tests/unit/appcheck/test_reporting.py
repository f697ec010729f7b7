"""The findings in every form that leaves the program, with names in them that mean something to each format."""

import json
from xml.etree import ElementTree

import apps
import jsonschema
import pytest
from apps import File, good_apk

from pipeline.appcheck import Asked, Checked, check, read_app
from pipeline.appcheck.app import Finding
from pipeline.appcheck.rules import SAYS
from pipeline.reporting.appcheck import CheckView, check_json, check_junit, check_markdown
from pipeline.reporting.sarif import check_sarif

_HOSTILE = "assets/a|b<b>`$(x)`\x1b[31m@me #1.onnx"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    built = good_apk().with_files(
        {_HOSTILE: File(b"no model"), "lib/arm64-v8a/libapp.so": File(apps.library(align=4096), align=4096)}
    )
    return check(read_app(built.write(tmp_path_factory.mktemp("app") / "app.apk")), Asked(budget_bytes=1))


def test_blocking_findings_come_first(checked: Checked) -> None:
    assert checked.status == "fail"
    severities = [finding.severity for finding in checked.findings]
    assert severities == sorted(severities, key=("blocking", "unjudged", "warning").index)
    assert set(severities) == {"blocking", "warning"}


def test_every_finding_has_a_sentence_and_a_remedy(checked: Checked) -> None:
    assert all(finding.rule in SAYS and finding.detail and finding.remedy for finding in checked.findings)


def test_junit_has_a_case_per_rule(checked: Checked) -> None:
    root = ElementTree.fromstring(check_junit(checked))
    failed = {case.get("name") for case in root.iter("testcase") if case.find("failure") is not None}
    assert failed == {"budget", "elf-page-size", "zip-page-size", "model-unreadable"}
    assert (root.get("tests"), root.get("failures")) == (str(len(SAYS)), "4")
    assert "zipalign -P 16" in "".join(root.itertext())


def test_sarif_is_what_the_standard_asks_for(checked: Checked) -> None:
    log = json.loads(check_sarif(checked, "app/build/outputs/app.apk"))
    jsonschema.Draft202012Validator(_SARIF).validate(log)
    [run] = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
    levels = {result["ruleId"]: result["level"] for result in run["results"]}
    assert levels["zip-page-size"] == "error" and levels["release-not-given"] == "note"
    places = [result["locations"][0] for result in run["results"]]
    assert {place["physicalLocation"]["artifactLocation"]["uri"] for place in places} == {"app/build/outputs/app.apk"}
    assert "lib/arm64-v8a/libapp.so" in json.dumps(places)


# What 2.1.0 requires of the objects we write (no package ships its schema): names, types, required properties.
_TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
_RESULT = {
    "type": "object",
    "required": ["message", "ruleId", "level"],
    "additionalProperties": False,
    "properties": {
        "ruleId": {"type": "string"},
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": _TEXT,
        "locations": {"type": "array", "minItems": 1},
        "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
_DRIVER = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "version": {"type": "string"},
        "rules": {
            "type": "array",
            "uniqueItems": True,
            "items": {"required": ["id"], "properties": {"id": {"type": "string"}, "shortDescription": _TEXT}},
        },
    },
}
_RUN = {
    "type": "object",
    "required": ["tool"],
    "additionalProperties": False,
    "properties": {
        "tool": {"type": "object", "required": ["driver"], "properties": {"driver": _DRIVER}},
        "artifacts": {"type": "array", "items": {"properties": {"hashes": {"type": "object"}}}},
        "results": {"type": "array", "minItems": 1, "items": _RESULT},
    },
}
_SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {"type": "array", "items": _RUN},
    },
}


def test_markdown_shows_names_as_they_are(checked: Checked) -> None:
    written = check_markdown(checked)
    assert written.startswith("## ✗ app.apk\n")
    assert "\x1b" not in written and "<b>" not in written.replace("\\<b\\>", "")
    tables = [line for line in written.splitlines() if line.startswith("|")]
    assert len(tables) == 2 + len(checked.findings)
    assert all(line.replace("\\|", "").count("|") == 6 for line in tables)


def test_json_is_the_findings_and_the_models(checked: Checked) -> None:
    read = json.loads(check_json(checked))
    assert read["status"] == "fail" and len(read["findings"]) == len(checked.findings)
    assert {model["format"] for model in read["app"]["models"]} == {"onnx"}
    assert read["app"]["libraries"][0]["version"] == "1.23.2"


def test_the_terminal_shows_no_control_characters(checked: Checked) -> None:
    from rich.console import Console

    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(CheckView(checked))
    assert "\x1b" not in captured.get() and "not to be released: 4 blocking" in captured.get()


def test_warnings_alone_pass_and_what_is_not_judged_is_inconclusive(checked: Checked) -> None:
    def status(*severities: str) -> str:
        made = [Finding(rule="budget", severity=s, file="", detail="d", remedy="r") for s in severities]
        return Checked(app=checked.app, findings=tuple(made)).status

    assert status() == status("warning") == "pass"
    assert status("warning", "unjudged") == "inconclusive"
    assert status("unjudged", "blocking") == "fail"
