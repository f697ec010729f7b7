"""Distance between a candidate's outputs and the float source's on the same inputs; needs no truth.

Every number is finite, so that it can be stored and compared, and an answer that is not finite gets the worst of each:
a NaN must never look perfect.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

# Identical outputs have an infinite SQNR. 200 dB is beyond what float32 can differ by (24 bits: about 150 dB).
SQNR_CAP_DB = 200.0
# Stands for "not finite" where an error is asked for; finite itself, as JSON has no infinity.
WORST_ERROR = float(np.finfo(np.float32).max)

_FLOAT_STEPS = 255  # a float output is judged in steps of an 8-bit grid over the reference's range


@dataclass(slots=True)
class _Sums:
    """Running sums of one output over the set, in float64."""

    reference: float = 0.0
    candidate: float = 0.0
    product: float = 0.0
    error: float = 0.0
    max_error: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    bad: int = 0
    elements: int = 0


@dataclass(slots=True)
class _Votes:
    """Whose class was highest, where the outputs look like a classifier's."""

    same: int = 0
    total: int = 0
    classes: set[int] = field(default_factory=set)


class Fidelity:
    """Streaming; fed one sample at a time.

    steps: quantization step (scale) of each of the candidate's outputs; 0, or left out, for a float output, whose
    step is then 1/255 of the reference's range over the set.
    classifier: whether to compare the top class. None: when there is one output of shape [1, K], K ≥ 2, in every
    sample and the reference's top class differs between samples (a regressor whose first value always leads does not).
    """

    def __init__(self, steps: Mapping[str, float] | None = None, *, classifier: bool | None = None) -> None:
        self._steps = dict(steps or {})
        self._classifier = classifier
        self._sums: dict[str, _Sums] = {}
        self._votes: _Votes | None = None if classifier is False else _Votes()

    def update(self, candidate: Mapping[str, NDArray[Any]], reference: Mapping[str, NDArray[Any]]) -> None:
        """Take in one sample: name -> real-valued (dequantized) array, both with the same names and shapes.

        Raises InputError when the reference holds NaN, ValueError when names or shapes differ.
        """
        if candidate.keys() != reference.keys():
            raise ValueError(f"outputs {sorted(candidate)} against {sorted(reference)}")
        for name, expected in reference.items():
            self._add(name, np.asarray(candidate[name], np.float64), np.asarray(expected, np.float64))
        self._vote(candidate, reference)

    def _add(self, name: str, got: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
        if got.shape != expected.shape:
            raise ValueError(f"output {name!r}: {list(got.shape)} against {list(expected.shape)}")
        if np.isnan(expected).any():
            raise InputError(f"the float source answers NaN in its output {name!r}", hint="check the model and sample")
        sums = self._sums.setdefault(name, _Sums())
        # An infinity of the reference (a masked logit) is right when the candidate has the same; it adds no error.
        same_infinity = np.isinf(expected) & (got == expected)
        valid = np.isfinite(expected) & np.isfinite(got)
        sums.bad += int((~valid & ~same_infinity).sum())
        sums.elements += got.size
        expected, got = expected[valid], got[valid]
        if not expected.size:
            return
        error = got - expected
        sums.reference += float(expected @ expected)
        sums.candidate += float(got @ got)
        sums.product += float(got @ expected)
        sums.error += float(error @ error)
        sums.max_error = max(sums.max_error, float(np.abs(error).max()))
        sums.low, sums.high = min(sums.low, float(expected.min())), max(sums.high, float(expected.max()))

    def _vote(self, candidate: Mapping[str, NDArray[Any]], reference: Mapping[str, NDArray[Any]]) -> None:
        if self._votes is None:
            return
        shapes = [array.shape for array in reference.values()]
        if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][0] != 1 or shapes[0][1] < 2:
            if self._classifier:
                raise ValueError(f"a classifier has one output [1, K], not {[list(shape) for shape in shapes]}")
            self._votes = None
            return
        [expected], [got] = reference.values(), candidate.values()
        self._votes.total += 1
        self._votes.classes.add(int(expected.argmax()))
        self._votes.same += bool(not np.isnan(got).any() and got.argmax() == expected.argmax())

    def result(self) -> dict[str, float]:
        """Return the distances over all samples so far; of several outputs each number is that of the worst one.

        sqnr_db: 10·log10(Σ reference² / Σ error²) in −200…200; 200 when identical, −200 when anything is not finite
            or the reference is all zero and the candidate is not.
        cosine: −1…1 over the concatenated set; 1 when both are all zero, −1 when anything is not finite.
        max_error_steps: largest |error| in quantization steps of its output. max_abs_error: the same, unscaled.
        finite_share: share of elements that are finite (or the very infinity of the reference).
        top1_agreement: share of samples with the same top class; only for classifiers.
        """
        if not self._sums:
            raise ValueError("no sample has been compared")
        every = self._sums.items()
        elements = sum(sums.elements for _, sums in every)
        bad = sum(sums.bad for _, sums in every)
        found = {
            "sqnr_db": min(_sqnr(sums) for _, sums in every),
            "cosine": min(_cosine(sums) for _, sums in every),
            "max_error_steps": max(_steps(sums, self._steps.get(name, 0.0)) for name, sums in every),
            "max_abs_error": max(WORST_ERROR if sums.bad else sums.max_error for _, sums in every),
            "finite_share": 1.0 - bad / elements if elements else 1.0,
        }
        votes = self._votes
        if votes is not None and votes.total and (self._classifier or len(votes.classes) > 1):
            found["top1_agreement"] = votes.same / votes.total
        return found


def _sqnr(sums: _Sums) -> float:
    if sums.bad:
        return -SQNR_CAP_DB
    if sums.error == 0.0:
        return SQNR_CAP_DB
    if sums.reference == 0.0:
        return -SQNR_CAP_DB
    # Apart, because the quotient itself can leave float64.
    decibel = 10.0 * float(np.log10(sums.reference) - np.log10(sums.error))
    return max(-SQNR_CAP_DB, min(SQNR_CAP_DB, decibel))


def _cosine(sums: _Sums) -> float:
    if sums.bad:
        return -1.0
    if sums.reference == 0.0 or sums.candidate == 0.0:
        return 1.0 if sums.reference == sums.candidate else 0.0
    cosine = sums.product / float(np.sqrt(sums.reference) * np.sqrt(sums.candidate))
    return max(-1.0, min(1.0, cosine))


def _steps(sums: _Sums, step: float) -> float:
    if sums.bad:
        return WORST_ERROR
    if sums.max_error == 0.0:
        return 0.0
    # A constant reference has no range; its magnitude is the only scale there is.
    step = step or (sums.high - sums.low) / _FLOAT_STEPS or max(abs(sums.high), abs(sums.low)) / _FLOAT_STEPS
    return min(WORST_ERROR, sums.max_error / step) if step else WORST_ERROR
