"""How the agent decides when a model is warm, how long to sample, and how far two answers are apart."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.agent.edge.answers import compare
from targets.agent.edge.benchmark import judge_child
from targets.agent.edge.runtimes import pick
from targets.agent.edge.sampling import settled, warm_samples, warm_up
from targets.agent.edge.wire import Refused

MS = 1_000_000


def runs(*times_ms: float, then_ms: float = 1) -> tuple[Callable[[], int], list[int]]:
    """A timed run that takes the given times, and the list of what it was asked for."""
    asked: list[int] = []
    left = [int(time * MS) for time in times_ms]

    def timed() -> int:
        asked.append(left.pop(0) if left else int(then_ms * MS))
        return asked[-1]

    return timed, asked


def test_a_steady_model_is_warm_after_two_windows() -> None:
    timed, _ = runs(then_ms=1)
    assert len(warm_up(timed, MS, 1e9)) == 10


def test_a_model_that_speeds_up_is_warmed_until_it_stands_still() -> None:
    timed, _ = runs(*(50 * 0.9**step for step in range(30)), then_ms=2)
    times = warm_up(timed, 60 * MS, 60e9)
    assert len(times) > 30
    assert settled(times)


def test_a_warm_up_ends_with_its_budget() -> None:
    timed, _ = runs(*(100 * 0.95**step for step in range(200)))
    assert sum(warm_up(timed, 100 * MS, 300 * MS)) <= 300 * MS


@pytest.mark.parametrize("first_ms", [500, 1000, 30_000])
def test_a_slow_model_is_warmed_once(first_ms: int) -> None:
    timed, asked = runs(then_ms=first_ms)
    warm_up(timed, first_ms * MS, 60e9)
    assert len(asked) == 1


def test_the_first_run_may_be_slow_alone() -> None:
    timed, asked = runs(then_ms=1)
    warm_up(timed, 800 * MS, 1e9)  # compiled kernels, say: one warm-up was agreed, then samples tell
    assert len(asked) == 1


@given(
    st.floats(0.01, 5),
    st.integers(1, 10),
    st.integers(1, 100),
    st.lists(st.floats(0.1, 400), min_size=120, max_size=120),
)
def test_samples_keep_within_time_and_number_but_never_below_the_least(
    max_s: float, least: int, most: int, times_ms: list[float]
) -> None:
    timed, _ = runs(*times_ms)
    times = warm_samples(timed, max_s, least, most)
    assert len(times) >= least
    assert len(times) <= max(least, most)
    if len(times) > least:
        assert sum(times[:-1]) <= max_s * 1e9


def test_integers_are_compared_in_raw_units() -> None:
    got, want = np.array([[-128, 5]], np.int8), np.array([[127, 5]], np.int8)
    assert compare([(["y"], got)], {"y": want}) == (255.0, True)


def test_floats_are_compared_in_255ths_of_the_expected_range() -> None:
    want = np.array([-1.0, 1.0], np.float32)
    steps, finite = compare([(["y"], want + np.float32(2 / 255))], {"y": want})
    assert steps == pytest.approx(1, rel=1e-4) and finite


@pytest.mark.parametrize(("constant", "steps"), [(4.0, 1.0), (0.0, 255 * 4 / 255)])
def test_a_constant_output_has_a_step_too(constant: float, steps: float) -> None:
    want = np.full(3, constant, np.float32)
    got = want + np.float32(4 / 255)
    assert compare([(["y"], got)], {"y": want})[0] == pytest.approx(steps, rel=1e-3)


def test_an_answer_that_is_not_finite_is_said_to_be_so() -> None:
    want = np.array([0.0, 1.0, 2.0], np.float32)
    steps, finite = compare([(["y"], np.array([0, np.nan, 2], np.float32))], {"y": want})
    assert steps == 0 and finite is False


def test_the_worst_output_counts_and_names_find_them() -> None:
    a, b = np.zeros(2, np.int8), np.zeros(2, np.int8)
    expected = {"second": b + 3, "first": a + 1}
    assert compare([(["first", "t:0"], a), (["t:1", "second"], b)], expected) == (3.0, True)


def test_an_expected_output_of_another_shape_is_refused() -> None:
    with pytest.raises(Refused, match="expected file"):
        compare([(["y"], np.zeros((1, 2)))], {"y": np.zeros((2, 1))})


def test_one_array_fits_one_tensor_whatever_it_is_called() -> None:
    assert pick({"image": 1}, ["input:0"], 1, "input") == 1
    with pytest.raises(Refused, match="no array for input a"):
        pick({"x": 1, "y": 2}, ["a"], 1, "input")
    with pytest.raises(Refused):
        pick({"x": 1}, ["a"], 2, "input")


def test_the_end_of_a_benchmark_process_is_told_as_it_was() -> None:
    with pytest.raises(Refused) as killed:
        judge_child(-11, b'{"stage": "loading the model"}\n{"sta', "last words")
    assert "SIGSEGV" in str(killed.value) and "loading the model" in str(killed.value)
    assert killed.value.error["stderr"] == "last words"
    with pytest.raises(Refused, match="status 3; it was at: starting"):
        judge_child(3, b"", "")
    with pytest.raises(Refused) as refused:
        judge_child(0, b'{"error": {"code": "no-runtime", "message": "none", "executable": "py"}}\n', "")
    assert refused.value.error == {"code": "no-runtime", "message": "none", "executable": "py"}


@pytest.mark.parametrize(
    ("delegated", "noise", "name"),
    [
        (True, "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", "XNNPACK"),
        (True, "", "unnamed"),
        (False, "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n", ""),
    ],
)
def test_a_delegate_counts_only_when_it_took_an_operation(delegated: bool, noise: str, name: str) -> None:
    line = json.dumps({"result": {"delegate": "", "delegated": delegated}})
    assert judge_child(0, line.encode(), noise) == {"delegate": name}
