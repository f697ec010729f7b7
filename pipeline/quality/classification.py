"""Top-k accuracy. Output [1, K] scores or probabilities; truth the class number, shape [] or [1]. Value 0–1."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

from .metrics import MetricScore, Outputs, mean_score, needed, one_output


class _TopK:
    name: str
    k: int

    def __init__(self, *, output: str = "") -> None:
        self._output = output
        self._hits: list[float] = []

    def update(self, outputs: Outputs, truth: NDArray[Any] | None) -> None:
        scores = one_output(outputs, self._output, self.name)
        wanted = _class_number(needed(truth, self.name), self.name)
        if scores.ndim != 1 or scores.size <= self.k:
            raise InputError(
                f"{self.name}: the output is {[1, *scores.shape]}", hint=f"it takes [1, K] with K above {self.k}"
            )
        if not 0 <= wanted < scores.size:
            raise InputError(
                f"{self.name}: the truth is class {wanted}, the output has {scores.size} classes",
                hint="classes are numbered from 0",
            )
        # Where scores are equal the lower class number leads, as argmax does; a NaN anywhere is a miss.
        ahead = int((scores > scores[wanted]).sum() + (scores[:wanted] == scores[wanted]).sum())
        self._hits.append(float(ahead < self.k and not np.isnan(scores).any()))

    def result(self) -> dict[str, MetricScore]:
        return {self.name: mean_score(self._hits, "higher")}


def _class_number(truth: NDArray[Any], metric: str) -> int:
    if truth.size != 1 or not np.issubdtype(truth.dtype, np.integer):
        raise InputError(
            f"{metric}: the truth is {truth.dtype} {list(truth.shape)}",
            hint="give one whole number, the class, per sample",
        )
    return int(truth.reshape(()))


class Top1(_TopK):
    """Share of samples whose highest score is the true class."""

    name, k = "top1", 1


class Top5(_TopK):
    """Share of samples whose true class is among the five highest scores."""

    name, k = "top5", 5
