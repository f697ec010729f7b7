"""Markdown, JUnit, JSON and console: what a parser of each makes of them."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from example import HOSTILE, example, two_devices
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import codec
from pipeline.derived import Energy
from pipeline.records import CalibrationReport, Coverage, Report
from pipeline.reporting.console import plain
from pipeline.reporting.html import html
from pipeline.reporting.junit import junit
from pipeline.reporting.markdown import escape, markdown
from pipeline.reporting.schema import report_json, report_schema

REPORTS = pytest.mark.parametrize("report", [example(), two_devices()], ids=["one device", "three devices"])


def _said(text: str) -> Report:
    """A report that says `text` wherever a program or a person outside wrote it."""
    report = example()
    worst = replace(report.candidates[-1], recipe=text or "r", reason=text, last_output=(text,), findings=(text,))
    return replace(report, name=text, reason=text, candidates=(*report.candidates[:-1], worst), budgets={text: text})


def _columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


@REPORTS
def test_report_json_is_valid_against_its_schema(report: Report) -> None:
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(report_json(report))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert codec.decode(Report, report_json(report)) == report
    assert document["candidates"][3]["metrics"]["PSNR-Y"]["drop"] == pytest.approx(0.06)
    del document["candidates"][0]["verdict"]
    with pytest.raises(jsonschema.ValidationError, match="verdict"):
        jsonschema.Draft202012Validator(schema).validate(document)


@REPORTS
def test_markdown_tables_have_the_same_columns_in_each_row(report: Report) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", markdown(report), flags=re.MULTILINE)
    assert len(blocks) == (1 if len(report.facts) == 1 else 2)
    for block in blocks:
        lines = block.splitlines()
        assert len(lines) == 2 + len(report.candidates)
        assert len({_columns(line) for line in lines}) == 1


def test_markdown_says_the_verdict_the_choice_and_the_refusals() -> None:
    text = markdown(two_devices())
    assert "← **chosen**" in text
    assert "no route to 192.0.2.7" in text
    assert "Latency, median (emulated)" in text
    assert "— no power meter on local" in text


@given(st.text())
def test_escaped_markdown_is_one_line_without_live_markup(text: str) -> None:
    escaped = escape(text)
    assert len(escaped.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(?:\\\\)*[<|`\[*]", escaped)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40))
def test_any_text_leaves_every_format_whole(text: str) -> None:
    report = _said(text)
    lines = [line for line in markdown(report).splitlines() if line.startswith("|")]
    assert len({_columns(line) for line in lines}) == 1
    root = ElementTree.fromstring(junit(report))
    assert len(root.findall("testsuite/testcase")) == len(report.candidates)
    assert "\x1b" not in plain(report)


@REPORTS
def test_junit_has_a_suite_per_device_and_a_case_per_candidate(report: Report) -> None:
    root = ElementTree.fromstring(junit(report))
    suites = {suite.get("name"): suite for suite in root.findall("testsuite")}
    assert set(suites) == set(report.facts)
    for suite in suites.values():
        assert [case.get("name") for case in suite.findall("testcase")] == [c.recipe for c in report.candidates]
        for attribute, element in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suite.get(attribute) == str(len(suite.findall(f"testcase/{element}")))
    local = suites["local"]
    assert [local.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["9", "1", "1", "1"]
    refused = local.find("testcase[@name='litert-int4-block']/error")
    assert refused is not None
    assert HOSTILE in str(refused.get("message"))
    assert "Aborted" in str(refused.text)
    if "pixel" in suites:
        assert suites["pixel"].get("errors") == "9"


@REPORTS
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_console_keeps_within_the_width(report: Report, width: int) -> None:
    text = plain(report, width)
    assert max(map(len, text.splitlines())) <= width
    assert "▶ litert-int8" in text
    assert "\x1b" not in text
    if width >= 80:
        assert "29.67 dB −0.06" in text


def test_console_shows_more_where_there_is_room() -> None:
    assert "p90" not in plain(example(), 80)
    assert "p90" in plain(example(), 200)


def test_measured_energy_has_its_uncertainty_its_net_and_where_it_was_measured() -> None:
    energy = Energy(
        meter="ina2xx",
        scope="the line that its ina226 is in",
        gross_j=0.02,
        gross_error_j=0.0006,
        net_j=0.005,
        net_error_j=0.0002,
        busy_w=3.6,
        idle_w=2.7,
        windows=5,
        window_s=10.0,
        inferences=9000,
        samples=1250,
        missing_samples=1,
        doubts=(),
    )
    report = example()
    measured = tuple(
        replace(c, targets={t: replace(r, energy=0.02, energy_details=energy) for t, r in c.targets.items()})
        for c in report.candidates
    )
    metered = replace(report, candidates=measured)
    told = "energy by ina2xx: the line that its ina226 is in; median of 5 windows of 10.0 s or more"
    assert escape("20.0 mJ ± 3.0 %") in markdown(metered) and escape("5.00 mJ ± 4.0 %") in markdown(metered)
    assert escape(told) in markdown(metered) and told in html(metered, Path()) and told in plain(metered, 200)
    assert "20.0 mJ" in plain(metered, 100) and "energy by" not in plain(report, 200)
    report_json(metered)


def test_texts_say_how_ranges_came_about_and_what_was_found() -> None:
    calibrated = CalibrationReport(
        path="calibration/onnx.sketch",
        sketch_digest="5e" * 32,
        model="ab" * 32,
        method="best",
        percentile=99.99,
        chosen_methods={"entropy": 3, "min-max": 29},
        seed=7,
        samples=2000,
        tensors=32,
        passes=4,
        predicted_peak_bytes=90_000_000,
        budget_bytes=100_000_000,
        coverage=(Coverage(samples=62, shift=0.02), Coverage(samples=2000, shift=0.0)),
        unstable_tensors={},
        findings=("62 samples are enough",),
    )
    report = replace(example(), calibrations={"onnx": calibrated})
    assert "! calibration of onnx: 62 samples are enough" in plain(report, 120)
    text = markdown(report).replace("\\", "")
    assert "- onnx: 62 samples are enough" in text
    assert "best (entropy 3, min-max 29), 32 tensors over 2000 samples, seed 7, 4 passes within 100 MB" in text
    assert "with fewer samples ranges differ by 62: 2%" in text
    for said in ("62 samples are enough", "32 tensors over 2000 samples", "5e" * 32):
        assert said in html(report, Path())
    assert codec.decode(Report, report_json(report)) == report


def test_the_console_says_what_is_odd_about_the_data() -> None:
    report = example()
    odd = replace(report, calibration=replace(report.calibration, findings=("a.png: values reach 255",)))
    assert "! calibration data: a.png: values reach 255" in plain(odd, 120)
