import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import quantities as q


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (q.number(0), "0"),
        (q.number(9.996), "10.0"),
        (q.number(99.96), "100"),
        (q.number(-0.01234), "−0.0123"),
        (q.number(1234), "1230"),
        (q.size(0), "0 B"),
        (q.size(999), "999 B"),
        (q.size(999_600), "1.00 MB"),
        (q.size(244_800), "245 kB"),
        (q.size(3_210_000_000), "3.21 GB"),
        (q.milliseconds(0.4567), "457 µs"),
        (q.milliseconds(6.127), "6.13 ms"),
        (q.milliseconds(599), "599 ms"),
        (q.milliseconds(999.7), "1.00 s"),
        (q.interval(0.4, 0.5, like=0.45), "[400, 500]"),
        (q.interval(4321, 4432, like=4370), "[4.32, 4.43]"),
        (q.joules(0.0213), "21.3 mJ"),
        (q.joules(0.0000021), "2.10 µJ"),
        (q.joules(1.5), "1.50 J"),
        (q.metric(29.6712, "dB"), "29.67 dB"),
        (q.metric(0.9584, ""), "0.958"),
        (q.metric(0.00012, ""), "0.000120"),
        (q.change(245, 896), "−73 %"),
        (q.change(599, 25), "24×"),
        (q.change(1.001, 1), "±0 %"),
        (q.change(1.5, 1), "+50 %"),
        (q.change(1.0, 0), ""),
        (q.fine_percent(-0.0003), "−0.03 %"),
        (q.signed(-0.06), "−0.06"),
        (q.signed(0.0), "±0"),
        (q.signed(0.004), "+0.004"),
    ],
)
def test_numbers_read_well(text: str, expected: str) -> None:
    assert text == expected


@given(st.floats(min_value=1e-4, max_value=1e12))
def test_three_digits_are_within_half_a_percent(value: float) -> None:
    text = q.number(value)
    assert re.fullmatch(r"\d+(\.\d+)?", text)
    assert float(text) == pytest.approx(value, rel=0.0051)


@given(st.integers(min_value=1, max_value=10**14))
def test_a_size_keeps_its_magnitude(count: int) -> None:
    figure, unit = q.size(count).split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert float(figure) * factor == pytest.approx(count, rel=0.0051)
    assert unit == "GB" or float(figure) < 1000
