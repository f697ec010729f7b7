"""The physics of an emulated board: what must hold for every board, load and way of cutting time into steps."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.lab.power.model import PowerParameters, State, allowed_cores, booted, step

BOARD = PowerParameters(
    idle_w=2.7,
    busy_core_w=1.45,
    ambient_c=25.0,
    resistance_k_per_w=11.0,
    time_constant_s=20.0,
    throttle_c=80.0,
    release_c=70.0,
    throttled_share=0.5,
)
INTERVAL_S = 0.035
loads = st.lists(st.tuples(st.floats(0.001, 5.0), st.floats(0.0, 4.0)), min_size=1, max_size=30)  # seconds, busy cores


def run(pieces: list[tuple[float, float]], parts: int = 1) -> State:
    """A device under one load after the other, observed `parts` times during each."""
    state = booted(BOARD, 100.0, 7.0, [INTERVAL_S])
    for duration_s, cores in pieces:
        start = state
        for part in range(1, parts + 1):
            passed_s = duration_s * part / parts
            state = step(BOARD, state, start.now_s + passed_s, start.cpu_s + cores * passed_s)
    return state


@given(pieces=loads, parts=st.integers(2, 9))
def test_looking_more_often_changes_nothing(pieces: list[tuple[float, float]], parts: int) -> None:
    once, often = run(pieces), run(pieces, parts)
    true_j = sum(duration_s * (2.7 + 1.45 * cores) for duration_s, cores in pieces)
    assert once.energy_j == pytest.approx(true_j)
    assert often.energy_j == pytest.approx(true_j)
    assert often.busy_j == pytest.approx(once.busy_j, abs=1e-9)
    assert often.temperature_c == pytest.approx(once.temperature_c)
    assert often.mean_w(INTERVAL_S) == pytest.approx(once.mean_w(INTERVAL_S), rel=1e-4)


@given(duration_s=st.floats(0.01, 1000.0), cores=st.floats(0.0, 4.0))
def test_it_warms_up_as_the_closed_form_says(duration_s: float, cores: float) -> None:
    begin_c, end_c = 25.0 + 11.0 * 2.7, 25.0 + 11.0 * (2.7 + 1.45 * cores)
    expected_c = end_c + (begin_c - end_c) * math.exp(-duration_s / 20.0)
    assert run([(duration_s, cores)], parts=7).temperature_c == pytest.approx(expected_c)


@given(pieces=loads)
def test_temperature_stays_between_what_the_loads_lead_to(pieces: list[tuple[float, float]]) -> None:
    hottest = max(cores for _, cores in pieces)
    assert BOARD.settled_c(2.7) - 1e-9 <= run(pieces).temperature_c <= BOARD.settled_c(2.7 + 1.45 * hottest) + 1e-9


@given(st.lists(st.tuples(st.floats(0.001, 0.2), st.floats(0.0, 4.0)), min_size=1, max_size=60))
def test_conversions_lose_no_energy(pieces: list[tuple[float, float]]) -> None:
    """The means of all conversions, each as long as the sensor's interval, add up to the energy until the last one."""
    state, converted_j, shown_s = booted(BOARD, 0.0, 0.0, [INTERVAL_S]), 0.0, 0.0
    for duration_s, cores in pieces:
        start, done_s = state, 0.0
        while done_s < duration_s:  # often enough to see every one
            done_s = min(duration_s, done_s + INTERVAL_S / 2)
            state = step(BOARD, state, start.now_s + done_s, start.cpu_s + cores * done_s)
            average = state.averages[0]
            if average.began_s > shown_s:
                assert average.began_s - shown_s == pytest.approx(INTERVAL_S)
                converted_j += average.mean_w * INTERVAL_S
                shown_s = average.began_s
    assert converted_j == pytest.approx(state.averages[0].began_energy_j)
    assert state.now_s - shown_s <= INTERVAL_S + 1e-9


def test_throttling_holds_until_it_is_cool_and_is_remembered() -> None:
    """With 8.5 W it heads for 118 °C; idle, back to 55 °C."""
    state, seen = booted(BOARD, 0.0, 0.0, []), []
    for second in range(1, 121):
        state = step(BOARD, state, float(second), state.cpu_s + (4.0 if second <= 40 else 0.0))
        seen.append((state.temperature_c, state.throttled, state.throttled_bits()))
    hot = next(index for index, (_, throttled, _) in enumerate(seen) if throttled)
    assert seen[hot - 1][0] < 80.0 <= seen[hot][0]
    assert seen[hot - 1][2] == 0 and seen[hot][2] == 0x20002
    cool = next(index for index in range(hot, len(seen)) if not seen[index][1])
    assert seen[cool][0] < 70.0 <= seen[cool - 1][0]  # not at 80 °C already
    assert seen[-1][2] == 0x20000


def test_no_time_no_change_and_never_backwards() -> None:
    state = run([(1.0, 1.0)])
    assert step(BOARD, state, state.now_s, state.cpu_s + 1.0) is state
    for now_s, cpu_s in ((state.now_s - 1, state.cpu_s), (state.now_s + 1, state.cpu_s - 1)):
        with pytest.raises(ValueError, match="backwards"):
            step(BOARD, state, now_s, cpu_s)


@pytest.mark.parametrize(
    "wrong", [{"time_constant_s": 0.0}, {"idle_w": -1.0}, {"release_c": 80.0}, {"throttled_share": 0.0}]
)
def test_boards_that_could_not_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        replace(BOARD, **wrong)


def test_a_slow_clock_slows_every_core_and_takes_none_away() -> None:
    assert [allowed_cores(BOARD, demand) for demand in (0.0, 1.0, 4.0)] == [0.5, 0.5, 2.0]
