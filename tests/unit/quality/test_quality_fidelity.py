"""Distance to the float source: exact where it can be, bounded everywhere, and never kind to NaN."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import InputError
from pipeline.quality import Fidelity
from pipeline.quality.fidelity import SQNR_CAP_DB, WORST_ERROR

finite = st.floats(-1e6, 1e6, width=32)
rows = hnp.arrays(np.float32, (1, 7), elements=finite)


def compare(pairs, **options) -> dict[str, float]:
    fidelity = Fidelity(**options)
    for candidate, reference in pairs:
        fidelity.update({"y": np.asarray(candidate)}, {"y": np.asarray(reference)})
    return fidelity.result()


@given(st.lists(rows, min_size=1, max_size=5))
def test_identical_outputs_are_perfect(references):
    found = compare([(row, row) for row in references])
    assert found["sqnr_db"] == SQNR_CAP_DB
    assert found["cosine"] == pytest.approx(1)
    assert (found["max_error_steps"], found["max_abs_error"], found["finite_share"]) == (0, 0, 1)
    assert found.get("top1_agreement", 1) == 1


@given(st.lists(st.tuples(rows, rows), min_size=1, max_size=5))
def test_streaming_equals_the_formula_over_the_whole_set(pairs):
    candidate = np.concatenate([first for first, _ in pairs]).astype(np.float64)
    reference = np.concatenate([second for _, second in pairs]).astype(np.float64)
    found = compare(pairs)
    assert found["max_abs_error"] == np.abs(candidate - reference).max()
    error, power = ((candidate - reference) ** 2).sum(), (reference**2).sum()
    if error > 0 and power > 0:
        assert found["sqnr_db"] == pytest.approx(np.clip(10 * np.log10(power) - 10 * np.log10(error), -200, 200))
    length = np.linalg.norm(candidate) * np.linalg.norm(reference)
    if length > 0:
        assert found["cosine"] == pytest.approx((candidate * reference).sum() / length, abs=1e-9)


@given(
    st.lists(st.tuples(rows, rows), min_size=1, max_size=4),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.integers(0, 6),
)
def test_anything_not_finite_gets_the_worst_of_each_and_stays_storable(pairs, bad, place):
    candidate, reference = pairs[0]
    broken = candidate.copy()
    broken[0, place] = bad
    found = compare([(broken, reference), *pairs[1:]], classifier=True)
    assert (found["sqnr_db"], found["cosine"]) == (-SQNR_CAP_DB, -1)
    assert (found["max_error_steps"], found["max_abs_error"]) == (WORST_ERROR, WORST_ERROR)
    assert found["finite_share"] == pytest.approx(1 - 1 / (7 * len(pairs)))
    json.dumps(found, allow_nan=False)


def test_all_nan_is_never_perfect():
    found = compare([(np.full((1, 4), np.nan), np.eye(4)[[number]]) for number in range(4)])
    assert found["finite_share"] == 0
    assert found["sqnr_db"] == -SQNR_CAP_DB
    assert found["top1_agreement"] == 0


def test_a_known_ratio_of_noise():
    reference = np.array([[3.0, 4.0]])
    assert compare([(reference * 1.1, reference)])["sqnr_db"] == pytest.approx(20)


def test_a_zero_reference():
    zero, one = np.zeros((1, 4)), np.ones((1, 4))
    assert compare([(zero, zero)])["sqnr_db"] == SQNR_CAP_DB
    assert compare([(zero, zero)])["cosine"] == 1
    found = compare([(one, zero)])
    assert (found["sqnr_db"], found["cosine"], found["max_error_steps"]) == (-SQNR_CAP_DB, 0, WORST_ERROR)


def test_steps_are_the_candidates_own_or_an_8_bit_grid_over_the_set():
    pairs = [([[0.0, 0.5]], [[0.0, 0.0]]), ([[255.0, 255.0]], [[255.0, 255.0]])]
    assert compare(pairs)["max_error_steps"] == pytest.approx(0.5)
    assert compare(pairs, steps={"y": 0.25})["max_error_steps"] == pytest.approx(2)
    # A constant reference: its magnitude is the only scale.
    assert compare([([[2.0, 3.0]], [[2.0, 2.0]])])["max_error_steps"] == pytest.approx(127.5)


def test_the_infinity_of_a_masked_logit_is_no_error():
    masked = np.array([[1.0, -np.inf]])
    assert compare([(masked, masked)])["sqnr_db"] == SQNR_CAP_DB
    assert compare([(masked, masked)])["finite_share"] == 1
    assert compare([(-masked, masked)])["finite_share"] == 0.5
    assert compare([(np.array([[1.0, -1e30]]), masked)])["sqnr_db"] == -SQNR_CAP_DB


def test_a_nan_of_the_source_is_the_sources_fault():
    with pytest.raises(InputError, match="the float source answers NaN in its output 'y'"):
        compare([([[1.0]], [[np.nan]])])


def test_of_several_outputs_the_worst_counts():
    fidelity = Fidelity({"a": 1.0, "b": 1.0})
    fidelity.update({"a": np.ones(3), "b": np.array([0.0, 2.0])}, {"a": np.ones(3), "b": np.array([0.0, 1.0])})
    found = fidelity.result()
    assert (found["sqnr_db"], found["max_error_steps"]) == (0, 1)
    assert "top1_agreement" not in found


def test_top1_agreement_is_for_classifiers():
    same, other = np.eye(3)[[0]], np.eye(3)[[1]]
    assert compare([(same, same), (same, other)])["top1_agreement"] == 0.5
    # One leading value in every sample: it may well be a regressor.
    assert "top1_agreement" not in compare([(same, same), (same, same)])
    assert compare([(same, same), (same, same)], classifier=True)["top1_agreement"] == 1
    assert "top1_agreement" not in compare([(same, same), (same, other)], classifier=False)
    for shape in ((1, 1), (1, 2, 2), (2, 2)):
        pairs = [(np.zeros(shape), np.arange(np.prod(shape)).reshape(shape)) for _ in range(2)]
        assert "top1_agreement" not in compare(pairs)
        with pytest.raises(ValueError, match="a classifier has one output"):
            compare(pairs, classifier=True)


def test_outputs_that_do_not_correspond_are_a_broken_assumption():
    with pytest.raises(ValueError, match="outputs"):
        Fidelity().update({"a": np.ones(1)}, {"b": np.ones(1)})
    with pytest.raises(ValueError, match=r"\[1, 2\] against \[1, 3\]"):
        compare([(np.ones((1, 2)), np.ones((1, 3)))])
    with pytest.raises(ValueError, match="no sample"):
        Fidelity().result()


@given(hnp.arrays(np.int8, (1, 5)), hnp.arrays(np.int8, (1, 5)))
def test_integer_outputs_do_not_overflow(candidate, reference):
    expected = np.abs(candidate.astype(int) - reference.astype(int)).max()
    assert compare([(candidate, reference)], steps={"y": 1.0})["max_error_steps"] == expected
