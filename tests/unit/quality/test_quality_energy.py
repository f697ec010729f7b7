"""Joules from traces of a device whose true energy is known: jitter, gaps, steps, wrap-around, drift, nonsense."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from power_world import BOOT_NS, Sensor, World, stamps

from pipeline.derived import Energy
from pipeline.quality.energy import energy_of
from pipeline.quality.power import unwrapped_j
from targets.records import Absent, Counter, PowerTrace, Window

BOARD = World(idle_w=2.7, busy_w=1.0)


def energy(trace: PowerTrace) -> Energy:
    found = energy_of(trace)
    assert isinstance(found, Energy), found
    return found


def refused(trace: PowerTrace) -> str:
    found = energy_of(trace)
    assert isinstance(found, Absent)
    return found.reason


@settings(max_examples=30)
@given(
    idle_w=st.floats(0.8, 6),
    busy_w=st.floats(1.0, 8),
    drift=st.floats(-0.002, 0.002),
    step_w=st.sampled_from([0.0, 0.00625, 0.02, 0.025]),
    jitter=st.floats(0, 0.9),
    lost=st.floats(0, 0.04),
    interval_s=st.sampled_from([0.011, 0.035, 0.1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_joules_are_those_of_the_device(
    idle_w: float, busy_w: float, drift: float, step_w: float, jitter: float, lost: float, interval_s: float, seed: int
) -> None:
    world = World(idle_w=idle_w, busy_w=busy_w, drift_w_per_s=drift)
    sensor = Sensor(interval_s=interval_s, averaging_s=0.035, step_w=step_w, jitter=jitter, lost=lost)
    found = energy(sensor.trace(world, np.random.default_rng(seed)))
    assert found.gross_j == pytest.approx(world.true_gross_j(), rel=0.01)
    assert isinstance(found.net_j, float)
    assert found.net_j == pytest.approx(world.true_net_j(), rel=0.03)
    assert found.doubts == ()
    # What the steps hide of a load that keeps to one of them is in the uncertainty; 0.1 %: interpolation at the ends.
    assert abs(found.gross_j - world.true_gross_j()) <= found.gross_error_j + 1e-3 * found.gross_j


def test_a_slow_gauge_needs_its_time_to_settle() -> None:
    gauge = Sensor(interval_s=0.25, averaging_s=1.0)
    good = energy(gauge.trace(replace(BOARD, settle_s=2.0), np.random.default_rng(0)))
    assert isinstance(good.net_j, float)
    assert good.net_j == pytest.approx(BOARD.true_net_j(), rel=1e-6)
    hasty = energy(gauge.trace(replace(BOARD, settle_s=0.0), np.random.default_rng(0)))
    assert not isinstance(hasty.net_j, float) or hasty.net_j < 0.97 * BOARD.true_net_j()


def test_idling_that_changes_is_taken_from_both_sides() -> None:
    world = World(idle_w=2.0, busy_w=1.5, drift_w_per_s=0.01)  # 0.75 W more at the end than at the beginning
    found = energy(Sensor().trace(world, np.random.default_rng(0)))
    assert found.net_j == pytest.approx(world.true_net_j(), rel=0.005)


@given(
    range_j=st.floats(1.0, 1e6),
    start=st.floats(0, 1),
    steps=st.lists(st.floats(0, 0.99), min_size=1, max_size=50),
)
def test_a_counter_that_wraps_is_undone(range_j: float, start: float, steps: list[float]) -> None:
    true = np.concatenate([[0.0], np.cumsum(steps)]) * range_j
    counter = Counter(name="c", range_j=range_j, readings_j=tuple(((start * range_j + true) % range_j).tolist()))
    assert unwrapped_j(counter) == pytest.approx(true, abs=1e-6 * range_j)


def counters(world: World, *shares_and_ranges: tuple[float, float]) -> PowerTrace:
    at = np.arange(0, world.end_s + 1, 0.05)
    found = tuple(
        Counter(name=str(number), range_j=most, readings_j=tuple(((share * world.energy_j(at) + 3) % most).tolist()))
        for number, (share, most) in enumerate(shares_and_ranges)
    )
    return PowerTrace(
        meter="rapl", scope="cpu", time_ns=stamps(at), counters=found, windows=world.made(), interval_s=0.05
    )


def test_each_counter_wraps_at_a_range_of_its_own() -> None:
    found = energy(counters(BOARD, (0.75, 7.0), (0.25, 11.0)))
    assert found.gross_j == pytest.approx(BOARD.true_gross_j(), rel=1e-6)
    assert found.net_j == pytest.approx(BOARD.true_net_j(), rel=1e-3)


def test_a_counter_without_range_that_falls_is_a_restarted_device() -> None:
    trace = counters(BOARD, (1.0, 1e9))
    readings = [reading if at < 600 else reading - 50 for at, reading in enumerate(trace.counters[0].readings_j)]
    broken = replace(trace, counters=(Counter(name="S1M", range_j=0.0, readings_j=tuple(readings)),))
    assert "began anew" in refused(broken)


def test_missing_samples_are_counted_and_too_many_are_refused() -> None:
    whole = Sensor(interval_s=0.1).trace(BOARD, np.random.default_rng(0))
    assert energy(whole).missing_samples == 0
    window = next(window for window in whole.windows if window.kind == "busy")
    places = [place for place, at in enumerate(whole.time_ns) if window.start_ns + 10**9 < at < window.end_ns]
    assert energy(without(whole, places[:7])).missing_samples == 6  # there is a sample at either end of a window
    assert "samples of test are missing" in refused(without(whole, [p for p in range(len(whole.time_ns)) if p % 5 < 2]))


def without(trace: PowerTrace, places: list[int]) -> PowerTrace:
    gone = set(places)
    kept = [place for place in range(len(trace.time_ns)) if place not in gone]
    return replace(
        trace,
        time_ns=tuple(trace.time_ns[place] for place in kept),
        power_w=tuple(trace.power_w[place] for place in kept),
    )


def test_uneven_samples_of_an_unsteady_load_do_not_close() -> None:
    """A meter that is read more often while the load is high: the plain mean is not the energy."""
    random = np.random.default_rng(0)
    trace = Sensor(interval_s=0.05).trace(BOARD, random)
    high = [int(at * 1e-9) % 2 == 0 for at in trace.time_ns]
    kept = [place for place, up in enumerate(high) if up or place % 4 == 0]
    power_w = [6.0 if up else 1.0 for up in high]
    swinging = replace(
        trace,
        time_ns=tuple(trace.time_ns[place] for place in kept),
        power_w=tuple(power_w[place] for place in kept),
        interval_s=0.2,
    )
    assert "do not close" in refused(swinging)


def test_net_energy_that_the_noise_of_idling_hides_is_refused() -> None:
    trace = Sensor().trace(replace(BOARD, busy_w=0.02), np.random.default_rng(0))
    noise = np.random.default_rng(1).normal(0, 0.5, len(trace.power_w))
    found = energy(replace(trace, power_w=tuple((np.array(trace.power_w) + noise).tolist())))
    assert isinstance(found.net_j, Absent) and "noise of idling" in found.net_j.reason
    assert found.gross_j == pytest.approx(BOARD.true_gross_j() * 2.72 / 3.7, rel=0.02)


@pytest.mark.parametrize(
    ("change", "doubt"),
    [
        ({"windows": 4}, "4 windows, 5 are needed"),
        ({"window_s": 5.0}, "windows of 5 s, 10 s are needed"),
    ],
)
def test_less_than_the_rules_ask_for_leaves_a_doubt(change: dict[str, float], doubt: str) -> None:
    assert energy(Sensor().trace(replace(BOARD, **change), np.random.default_rng(0))).doubts == (doubt,)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["modelled", "replayed"])
def test_power_that_nobody_measured_leaves_a_doubt(kind: str) -> None:
    trace = replace(Sensor().trace(BOARD, np.random.default_rng(0)), kind=kind)  # type: ignore[arg-type]
    assert energy(trace).doubts == (f"the power is {kind}, not measured",)


def test_what_no_sensor_can_have_given_is_refused() -> None:
    trace = Sensor().trace(BOARD, np.random.default_rng(0))
    late = Window(kind="busy", start_ns=trace.time_ns[-1], end_ns=trace.time_ns[-1] + 10**10, runs=1)
    assert "clock of test ran backwards" in refused(replace(trace, time_ns=(*trace.time_ns[:-1], BOOT_NS)))
    assert "time stamps" in refused(replace(trace, power_w=trace.power_w[:-1]))
    assert "no number" in refused(replace(trace, power_w=(float("nan"), *trace.power_w[1:])))
    assert "do not cover" in refused(replace(trace, windows=(*trace.windows, late)))
    assert "no window with a whole inference" in refused(replace(trace, windows=()))
    assert "two are needed" in refused(replace(trace, time_ns=trace.time_ns[:1], power_w=trace.power_w[:1]))
    assert "shows no power" in refused(replace(trace, power_w=tuple(0.0 for _ in trace.power_w)))


def test_without_idling_before_and_after_there_is_no_net() -> None:
    trace = Sensor().trace(BOARD, np.random.default_rng(0))
    found = energy(replace(trace, windows=trace.windows[:-1]))
    assert isinstance(found.net_j, Absent) and "before and after" in found.net_j.reason
