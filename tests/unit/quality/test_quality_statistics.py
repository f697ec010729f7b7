"""Medians with intervals: deterministic, inside the data, and covering what they claim to cover."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality import intervals_overlap, paired_drop, summarize
from pipeline.quality.statistics import MIN_FOR_INTERVAL

latencies = st.lists(st.integers(1, 10**10), min_size=1, max_size=200)
scores = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60)


@given(latencies)
def test_the_summary_lies_within_the_samples_and_repeats(samples):
    summary = summarize(samples)
    low, high = summary.ci95
    assert min(samples) / 1e6 <= low <= summary.median <= high <= max(samples) / 1e6
    assert summary.median <= summary.p90 <= max(samples) / 1e6
    assert summary.n == len(samples)
    assert summary == summarize(samples)


@given(latencies, st.integers(1, 1000))
def test_a_slower_clock_scales_everything(samples, factor):
    summary, scaled = summarize(samples), summarize([value * factor for value in samples])
    assert scaled.median == pytest.approx(summary.median * factor)
    assert scaled.ci95 == pytest.approx([end * factor for end in summary.ci95])


def test_the_units_are_nanoseconds_in_and_milliseconds_out():
    assert summarize([2_000_000]).median == 2
    assert summarize([2_000_000]).ci95 == (2, 2)


def test_too_few_samples_give_the_whole_range_and_never_a_difference():
    few, many = summarize([1, 2, 3, 4, 5]), summarize(range(100, 200))
    assert few.ci95 == (1e-6, 5e-6)
    assert intervals_overlap(few, many)
    assert not intervals_overlap(summarize(range(1, 40)), many)
    assert intervals_overlap(summarize(range(90, 190)), many)


def test_the_exact_distribution_equals_brute_force_resampling():
    values = np.random.default_rng(5).permutation(np.arange(1, 26)) * 1_000_000
    summary = summarize(values)
    random = np.random.default_rng(0)
    medians = np.sort(np.median(values[random.integers(0, 25, (40_000, 25))], axis=1)) / 1e6
    # 25 shuffled values: blocks of one, an odd count, so the two bootstraps are the same one.
    assert summary.ci95 == (medians[1_000], medians[39_000])


@pytest.mark.parametrize(
    ("count", "correlation", "least"), [(MIN_FOR_INTERVAL, 0.0, 0.9), (30, 0.0, 0.9), (200, 0.0, 0.9), (300, 0.7, 0.84)]
)
def test_the_interval_covers_the_true_median(count, correlation, least):
    random, hits, runs = np.random.default_rng(1), 0, 200
    for _ in range(runs):
        noise = random.normal(size=count + 50)
        for place in range(1, count + 50):
            noise[place] += correlation * noise[place - 1]
        low, high = summarize((noise[50:] + 100) * 1e6).ci95
        hits += low <= 100 <= high
    assert hits / runs >= least


def test_autocorrelation_widens_the_interval():
    random = np.random.default_rng(2)
    walk = random.normal(size=400)
    for place in range(1, 400):
        walk[place] += 0.8 * walk[place - 1]
    walk = (walk + 100) * 1e6

    def width(values):
        low, high = summarize(values).ci95
        return high - low

    assert width(walk) > 1.5 * width(random.permutation(walk))


def test_no_samples():
    with pytest.raises(ValueError, match="no samples"):
        summarize([])


@given(scores, st.sampled_from(["higher", "lower"]))
def test_no_change_is_no_drop(values, better):
    drop = paired_drop(values, values, better)
    assert (drop.mean, drop.ci95, drop.n) == (0, (0, 0), len(values))


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=60))
def test_the_drop_is_the_mean_difference_and_turns_with_the_direction(pairs):
    reference, candidate = zip(*pairs, strict=True)
    drop, turned = paired_drop(reference, candidate, "higher"), paired_drop(reference, candidate, "lower")
    assert drop.mean == pytest.approx(np.mean(np.subtract(reference, candidate)))
    assert turned.mean == pytest.approx(-drop.mean)
    differences = np.subtract(reference, candidate)
    slack = 1e-9 * np.abs(differences).max()
    assert differences.min() - slack <= drop.ci95[0] <= drop.ci95[1] <= differences.max() + slack
    assert drop == paired_drop(reference, candidate, "higher")


def test_pairing_sees_a_small_drop_that_is_the_same_in_every_sample():
    random = np.random.default_rng(3)
    reference = random.normal(30, 5, 50)
    low, high = paired_drop(reference, reference - 0.1 + random.normal(0, 0.02, 50), "higher").ci95
    assert 0.08 < low < 0.1 < high < 0.12


def test_the_interval_covers_the_true_drop():
    random, hits = np.random.default_rng(4), 0
    for _ in range(200):
        low, high = paired_drop(np.zeros(60), random.normal(-1, 2, 60), "higher").ci95
        hits += low <= 1 <= high
    assert hits / 200 >= 0.9


def test_more_samples_than_one_chunk_holds():
    drops = np.random.default_rng(6).normal(1, 1, 20_000)
    low, high = paired_drop(drops, np.zeros(20_000), "higher").ci95
    # The standard error is 1/√20000.
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(20_000), rel=0.1)


@pytest.mark.parametrize(
    ("reference", "candidate"), [([], []), ([1.0], [1.0, 2.0]), ([math.nan], [1.0]), ([1.0], [math.inf])]
)
def test_scores_that_cannot_be_paired(reference, candidate):
    with pytest.raises(ValueError):
        paired_drop(reference, candidate, "higher")
