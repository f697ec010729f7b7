import json
import math
from dataclasses import replace

import pytest
from example import example, facts, two_devices
from hypothesis import given
from hypothesis import strategies as st

from pipeline import codec
from pipeline.errors import DeployError
from pipeline.records import Refusal, Report, Summary
from targets.records import Absent, Facts

SUMMARY = Summary(median=1.0, p90=2.5, ci95=(1.0, 2.0), n=3)


@pytest.mark.parametrize("report", [example(), two_devices()], ids=["one device", "three devices"])
def test_a_report_survives_the_round_trip(report: Report) -> None:
    assert codec.decode(Report, codec.encode(report)) == report


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_text_survives_the_round_trip(reason: str, lines: list[str]) -> None:
    record = Refusal(stage="quantize", reason=reason, last_output=tuple(lines))
    data = codec.encode(record)
    assert codec.decode(Refusal, data) == record
    assert codec.encode(codec.decode(Refusal, data)) == data


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_exactly(value: float) -> None:
    record = Summary(median=value, p90=0.0, ci95=(value, value), n=1)
    assert codec.decode(Summary, codec.encode(record)) == record


def test_bytes_are_canonical() -> None:
    assert codec.encode(SUMMARY) == b'{"ci95":[1.0,2.0],"median":1.0,"n":3,"p90":2.5}'


def test_an_int_in_a_float_field_gives_the_same_bytes() -> None:
    assert codec.encode(Summary(median=1, p90=2.5, ci95=(1, 2), n=3)) == codec.encode(SUMMARY)


def test_absence_is_told_from_a_number() -> None:
    record = replace(facts("local"), temperature_c=41.5, governor=Absent(reason="é"))
    assert codec.decode(Facts, codec.encode(record)) == record


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_non_finite_number_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match=r"Summary\.ci95\[1\] is"):
        codec.encode(Summary(median=1.0, p90=1.0, ci95=(1.0, value), n=1))


def test_a_value_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ValueError, match="wrong type"):
        codec.encode(Summary(median="fast", p90=1.0, ci95=(1.0, 1.0), n=1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        codec.encode(SUMMARY)[:-5],
        codec.encode(SUMMARY).replace(b"2.5", b'"2.5"'),
        codec.encode(SUMMARY).replace(b"2.5", b"NaN"),
        codec.encode(SUMMARY).replace(b"2.5", b"1e999"),
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_an_expected_error(data: bytes) -> None:
    with pytest.raises(DeployError, match="damaged Summary record") as caught:
        codec.decode(Summary, data)
    assert isinstance(caught.value, codec.DamagedRecord)
    assert caught.value.hint


def test_unknown_keys_are_ignored() -> None:
    document = json.loads(codec.encode(SUMMARY))
    assert codec.decode(Summary, json.dumps({**document, "since": "0.9"}).encode()) == SUMMARY
