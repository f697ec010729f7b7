"""When the samples seen so far are enough to reject a mix. Pure.

Looking at the data several times and stopping at the first bad look would reject good mixes too often; a look counts
only when the loss is three standard errors over what is allowed (Haybittle 1971; Peto et al. 1976), which leaves the
level of the last look as it was. Nothing is ever accepted early: that takes all samples and their interval.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.quality import MetricScore

# Standard errors; the boundary of Haybittle and Peto.
_BOUNDARY = 3.0
# From this many samples in each half on, the search and the verdict have samples of their own.
LEAST_APART = 20
# Before this many samples a standard error says little.
LEAST_SAMPLES = 8


def rejected(drops: Sequence[float], allowed: float) -> bool:
    """Say whether these per-sample losses (candidate against float, positive is worse) already rule the mix out."""
    count = len(drops)
    if count < LEAST_SAMPLES:
        return False
    error = float(np.std(drops, ddof=1)) / math.sqrt(count)
    return error > 0 and float(np.mean(drops)) - _BOUNDARY * error > allowed


def looks(samples: int) -> frozenset[int]:
    """After which samples to look: 8, and every doubling, before the last."""
    found, at = set[int](), LEAST_SAMPLES
    while at < samples:
        found.add(at)
        at *= 2
    return frozenset(found)


def chosen_samples(count: int, most: int) -> list[int]:
    """Numbers of the test samples the search looks at, in the order it does."""
    numbers = list(range(0, count, 2)) if count >= 2 * LEAST_APART else list(range(count))
    order = np.random.default_rng(0).permutation(len(numbers))
    return [numbers[place] for place in order[:most]]


def sample_drops(
    name: str,
    scores: Mapping[str, MetricScore],
    closeness: Mapping[str, Sequence[float]],
    baseline: Mapping[str, MetricScore],
) -> list[float]:
    """Loss of each sample seen; empty when the metric has no value for one sample."""
    if name in scores:
        ours, theirs = scores[name].per_sample, baseline[name].per_sample
        sign = 1.0 if scores[name].better == "higher" else -1.0
        return [sign * (b - a) for a, b in zip(ours, theirs, strict=False)] if ours and theirs else []
    return [1.0 - value for value in closeness.get(name, ())]
