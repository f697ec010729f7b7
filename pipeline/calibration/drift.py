"""How far two sets of observations of one model are apart, tensor by tensor."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.calibration.sketch import BUCKETS, Floats, Sketch

# Under this share a bin counts as this full: an empty bin alone would make the index infinite.
_FLOOR = 1e-4
_BINS = 10  # of the population stability index, which is read against 0.1 and 0.25 for deciles
# Values to a bin: by chance alone the index is about 2 (bins − 1) / values (Yurdakul 2018), 0.1 with so many.
_LEAST = 20
_COARSE = 32  # buckets to a bin of the divergence: 4 bins per power of two, so that sampling noise stays small
SLIGHT, STRONG = 0.1, 0.25  # the usual thresholds (Siddiqi 2006, Credit Risk Scorecards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One tensor's distance.

    psi: population stability index over the deciles of the reference; under 0.1 nothing, over 0.25 a real change. With
        few values there are fewer bins, with less than 40 none and no index.
    divergence: Jensen-Shannon divergence in bits, 0 (same) to 1 (nothing in common); Lin 1991.
    outside: share of the newer values beyond the range of the reference, which a min-max range would clip.
    """

    tensor: str
    psi: float
    divergence: float
    outside: float


def drift(reference: Mapping[str, Sketch], newer: Mapping[str, Sketch]) -> list[Drift]:
    """The tensors that both have, worst first."""
    found = [_drift(name, sketch, newer[name]) for name, sketch in reference.items() if name in newer]
    return sorted(found, key=lambda one: (-one.psi, one.tensor))


def _drift(name: str, reference: Sketch, newer: Sketch) -> Drift:
    start, end = newer.edges()
    beyond = (start > reference.high) | (end < reference.low)
    return Drift(
        tensor=name,
        psi=_stability_index(reference, newer),
        divergence=_divergence(_coarse(reference), _coarse(newer)),
        outside=float(newer.counts[beyond].sum() / newer.total),
    )


def _stability_index(reference: Sketch, newer: Sketch) -> float:
    cumulative = reference.counts.cumsum() / reference.total
    bins_told_apart = max(1, min(_BINS, min(reference.total, newer.total) // _LEAST))
    deciles = np.arange(1, bins_told_apart) / bins_told_apart
    # The last bucket of each bin. A value that fills several deciles ends one bin: duplicates go.
    ends = np.unique(reference.ordinals[np.searchsorted(cumulative, deciles)])
    shares = []
    for sketch in (reference, newer):
        bins = np.searchsorted(ends, sketch.ordinals)
        filled = np.bincount(bins, weights=sketch.counts, minlength=len(ends) + 1) / sketch.total
        shares.append(np.maximum(filled, _FLOOR))
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def _coarse(sketch: Sketch) -> Floats:
    bins = np.bincount(sketch.ordinals // _COARSE, weights=sketch.counts, minlength=BUCKETS // _COARSE)
    shares: Floats = bins / sketch.total
    return shares


def _divergence(first: Floats, second: Floats) -> float:
    middle = (first + second) / 2

    def relative(one: Floats) -> float:
        some = one > 0
        return float(np.sum(one[some] * np.log2(one[some] / middle[some])))

    return max(0.0, (relative(first) + relative(second)) / 2)
