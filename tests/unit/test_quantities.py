"""Quantities as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.quantities import parse_quantity


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("2 MB", "bytes", 2e6),
        ("2MiB", "bytes", 2 * 2**20),
        ("1.5 kb", "bytes", 1500),
        ("12 B", "bytes", 12),
        (4096, "bytes", 4096),
        ("20 ms", "ms", 20),
        ("0.5 s", "ms", 500),
        ("30 µs", "ms", 0.03),
        (12.5, "ms", 12.5),
        ("2 min", "s", 120),
        ("40 ms", "s", 0.04),
        ("30 mJ", "j", 0.03),
        (" 3  J ", "j", 3),
    ],
)
def test_read(text: object, dimension: str, value: float) -> None:
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("2 ms", "bytes"),
        ("2 MB", "ms"),
        ("", "ms"),
        ("fast", "ms"),
        ("-3 ms", "ms"),
        (0, "s"),
        (True, "s"),
        (None, "j"),
        ("1 2 ms", "ms"),
        ("1,5 MB", "bytes"),
        ("nan", "j"),
        ("inf ms", "ms"),
        ("9" * 400, "ms"),
        ([1], "s"),
    ],
)
def test_refused_with_the_units_there_are(text: object, dimension: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_quantity(text, dimension)
    assert repr(text) in caught.value.message
    assert dimension.removesuffix("ytes") in caught.value.hint


@given(st.floats(1e-6, 1e12), st.sampled_from(["B", "kB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_a_number_and_a_unit_multiply(number: float, unit: str) -> None:
    written = f"{number:.9f}"
    assert parse_quantity(f"{written} {unit}", "bytes") == pytest.approx(
        float(written) * parse_quantity(f"1 {unit}", "bytes"), rel=1e-9
    )


@given(st.text(max_size=12), st.sampled_from(["bytes", "ms", "s", "j"]))
def test_any_text_is_a_positive_number_or_refused(text: str, dimension: str) -> None:
    try:
        assert 0 < parse_quantity(text, dimension) < float("inf")
    except UsageError as error:
        assert error.hint
