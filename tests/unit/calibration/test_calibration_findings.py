"""What is told of the samples, and how far two sketches are apart."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_calibration_sketch import sketch_of

from pipeline.calibration.drift import drift
from pipeline.calibration.engine import LEVELS, Observation, level_of
from pipeline.calibration.findings import findings, stability, sufficient
from pipeline.records import Coverage


def observation(samples: int, scale_of_one: float = 1.0, values: int = 2_000) -> Observation:
    """Normal values in tensor `t`; in every second sample of level 0 they are `scale_of_one` times as wide."""
    levels, counts, digests = [{} for _ in range(LEVELS)], [0] * LEVELS, []
    parts: list[list[np.ndarray]] = [[] for _ in range(LEVELS)]
    for number in range(samples):
        random = np.random.default_rng(number)
        digest = random.bytes(32).hex()
        level = level_of(digest)
        scale = scale_of_one if level == 0 else 1.0
        parts[level].append((random.normal(size=values) * scale).astype(np.float32))
        counts[level] += 1
        digests.append(digest)
    for level, some in enumerate(parts):
        if some:
            levels[level] = {"t": sketch_of(*some), "dead": sketch_of(np.zeros(4, np.float32))}
    return Observation(levels=levels, counts=counts, samples=tuple(digests))


def test_levels_are_halves_of_halves():
    random = np.random.default_rng(0)
    counts = np.bincount([level_of(random.bytes(32).hex()) for _ in range(6_400)], minlength=LEVELS)
    assert counts == pytest.approx([3_200, 1_600, 800, 400, 200, 200], rel=0.2)


def test_an_unstable_tensor_is_named():
    seen = observation(64, scale_of_one=2.0)
    found = stability(seen, "percentile", 99.99)
    assert list(found.unstable) == ["t"]
    assert found.unstable["t"] == pytest.approx(0.25, abs=0.05)  # each end moves by a quarter of the wider range
    told = findings(found, seen.sketches())
    assert told[0] == "1 dead tensors, zero for every sample: dead"
    assert told[1].startswith("1 of 2 tensors: their range differs by more than 20% (up to 2")
    assert told[1].endswith("so more would help: t")


def test_the_coverage_curve_says_how_many_were_enough():
    seen = observation(400, values=20_000)
    found = stability(seen, "percentile", 99.9)
    assert not found.unstable
    counts = [point.samples for point in found.coverage]
    assert counts == sorted(counts)
    assert counts[-1] == 400
    assert found.coverage[-1].shift == 0
    assert sufficient(found.coverage) == counts[0] < 40
    assert f"{counts[0]} samples are enough, 400 were given" in findings(found, seen.sketches())[-1]
    # Not when the last half still moved the ranges, and not for what came before a move.
    curve = [Coverage(samples=n, shift=s) for n, s in ((2, 0.04), (4, 0.3), (8, 0.01), (16, 0.0))]
    assert sufficient(tuple(curve)) == 8
    assert sufficient((Coverage(samples=8, shift=0.4), Coverage(samples=16, shift=0.0))) is None


def test_one_sample_is_no_fault():
    seen = observation(1)
    found = stability(seen, "min-max", 99.99)
    assert (found.unstable, len(found.coverage)) == ({}, 1)
    assert findings(found, seen.sketches())[0].startswith("1 dead")


def test_drift_is_nothing_for_the_same_distribution_and_grows_with_a_shift():
    random = np.random.default_rng(0)
    reference = sketch_of(random.normal(size=50_000).astype(np.float32))
    [same] = drift({"t": reference}, {"t": reference})
    assert (same.psi, same.divergence, same.outside) == (0, 0, 0)
    distances = []
    for shift in (0.0, 0.3, 1.0, 30.0):
        newer = sketch_of((random.normal(size=50_000) + shift).astype(np.float32))
        distances.append(drift({"t": reference}, {"t": newer})[0])
    assert distances[0].psi < 0.01
    assert 0.05 < distances[1].psi < 0.25 < distances[2].psi  # for a shift of d sigma it is about d²
    assert all(a.divergence < b.divergence for a, b in itertools.pairwise(distances))
    assert distances[0].divergence < 0.01
    assert distances[3].divergence == pytest.approx(1, abs=0.001)
    assert distances[3].outside == 1


@settings(deadline=None)
@given(st.floats(0.1, 10), st.floats(-3, 3))
def test_divergence_does_not_care_which_is_the_reference(scale, shift):
    random = np.random.default_rng(0)
    one, other = (sketch_of((random.normal(size=500) * s + d).astype(np.float32)) for s, d in ((1, 0), (scale, shift)))
    forth, back = drift({"t": one}, {"t": other})[0], drift({"t": other}, {"t": one})[0]
    assert forth.divergence == pytest.approx(back.divergence, abs=1e-12)
    assert 0 <= forth.divergence <= 1
    assert forth.psi >= 0


def test_the_worst_tensor_comes_first():
    values = np.random.default_rng(0).normal(size=5_000).astype(np.float32)
    before = {name: sketch_of(values) for name in "abc"}
    after = {"a": sketch_of(values), "b": sketch_of(values * 3), "new": sketch_of(values)}
    assert [one.tensor for one in drift(before, after)] == ["b", "a"]


def test_a_handful_of_values_is_no_evidence_of_drift():
    random = np.random.default_rng(0)
    one, other = (sketch_of(random.normal(size=25).astype(np.float32)) for _ in range(2))
    assert drift({"t": one}, {"t": other})[0].psi == 0
