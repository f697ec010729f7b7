"""From sketches to ranges, checked against the values themselves."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_calibration_sketch import VALUES, sketch_of

from pipeline.calibration.entropy import entropy_range
from pipeline.calibration.methods import choose
from pipeline.calibration.percentile import order_statistic, percentile_range
from pipeline.calibration.quantization_error import expected_error

METHODS = ("min-max", "percentile", "entropy", "mse", "best")
RANDOM = np.random.default_rng(0)
DISTRIBUTIONS = {
    "normal": RANDOM.normal(size=200_000),
    "laplace": RANDOM.laplace(size=200_000),
    "heavy": RANDOM.standard_t(3, size=200_000),
    "relu6": np.clip(RANDOM.normal(1, 3, size=200_000), 0, 6),
    "uniform": RANDOM.uniform(-1, 3, size=200_000),
    "positive": RANDOM.gamma(2.0, size=200_000) + 0.5,
}
DISTRIBUTIONS = {name: values.astype(np.float32) for name, values in DISTRIBUTIONS.items()}


def quantization_error(values: np.ndarray, low: float, high: float, power: int) -> float:
    step = (high - low) / 255
    zero_point = round(-low / step)
    quantized = np.clip(np.rint(values.astype(np.float64) / step) + zero_point, 0, 255)
    return float(np.mean(np.abs((quantized - zero_point) * step - values) ** power))


@given(VALUES, st.integers(1, 200))
def test_order_statistics_are_within_a_bucket(values, rank):
    rank = min(rank, values.size)
    exact = float(np.sort(values)[rank - 1])
    # 1/128: seven bits of mantissa; under 1e-40 everything is zero.
    assert order_statistic(sketch_of(values), rank) == pytest.approx(exact, rel=1 / 128, abs=1e-40)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99, 100.0])
def test_percentiles_are_within_one_percent(name, percentile):
    values = np.sort(DISTRIBUTIONS[name])
    rank = math.ceil((1 - (1 - percentile / 100) / 2) * values.size)
    exact = values[values.size - rank], values[rank - 1]
    assert percentile_range(sketch_of(values), percentile) == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("power", [2, 3])
def test_the_error_is_that_of_quantizing_the_values(name, power):
    values, sketch = DISTRIBUTIONS[name], sketch_of(DISTRIBUTIONS[name])
    low, high = min(sketch.low, 0), max(sketch.high, 0)
    ranges = np.array([[low, high], [low / 2, high / 2], [low / 8, high / 8]])
    expected = [quantization_error(values, *ends, power) for ends in ranges]
    assert expected_error(sketch, ranges, 256, power) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_least_squares_beats_every_other_method(name):
    values, sketch = DISTRIBUTIONS[name], sketch_of(DISTRIBUTIONS[name])
    errors = {}
    for method in METHODS:
        chosen = choose(sketch, method, 99.99)
        errors[method] = quantization_error(values, chosen.low, chosen.high, 2)
    assert errors["mse"] <= 1.03 * min(errors.values())  # the grid is 4.5 % fine


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_best_is_the_best_of_the_others_by_its_own_measure(name):
    sketch = sketch_of(DISTRIBUTIONS[name])
    chosen = {method: choose(sketch, method, 99.99) for method in METHODS}
    errors = {m: expected_error(sketch, np.array([[c.low, c.high]]), 256, 3)[0] for m, c in chosen.items()}
    assert errors["best"] == min(errors.values())
    assert chosen["best"].method in METHODS[:-1]
    same = chosen[chosen["best"].method]
    assert (same.low, same.high) == (chosen["best"].low, chosen["best"].high)


def test_entropy_cuts_a_lone_outlier_and_keeps_a_full_range():
    values = RANDOM.normal(size=100_000).astype(np.float32)
    _, high = entropy_range(sketch_of(np.append(values, np.float32(100))), 256)
    assert 2 < high < 20
    assert entropy_range(sketch_of(DISTRIBUTIONS["relu6"]), 256) == pytest.approx((0, 6), rel=0.01)


@given(VALUES, st.sampled_from(METHODS))
def test_every_range_holds_zero_and_nothing_that_did_not_occur(values, method):
    chosen = choose(sketch_of(values), method, 99.9)
    assert min(float(values.min()), 0) <= chosen.low <= 0 <= chosen.high <= max(float(values.max()), 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("value", "ends"), [(0, (0, 0)), (-0.0, (0, 0)), (2.5, (0, 2.5)), (-2.5, (-2.5, 0))])
def test_dead_and_constant_tensors(method, value, ends):
    sketch = sketch_of(np.full(9, value, np.float32))
    assert (sketch.dead, sketch.constant) == (value == 0, True)
    chosen = choose(sketch, method, 99.99)
    assert (chosen.low, chosen.high) == ends
