"""How well a language model foresees the next token: output [1, K] or [1, T, K], truth the token id (or ids [T])."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError

from .metrics import MetricScore, Outputs, mean_score, needed, one_output

Scores = Literal["auto", "probabilities", "logits"]
Floats = NDArray[np.float64]

# An 8-bit softmax rounds small probabilities to 0, which would cost infinite bits. 2⁻²³ is float32's resolution
# at 1: below it a softmax's own rounding decides. NaN costs the same 23 bits.
_FLOOR_BITS = 23.0


class _NextToken:
    name: str

    def __init__(self, *, output: str = "", scores: Scores = "auto") -> None:
        self._output = output
        self._kind = scores
        self._bits: list[float] = []

    def update(self, outputs: Outputs, truth: NDArray[Any] | None) -> None:
        scores = one_output(outputs, self._output, self.name).astype(np.float64)
        ids = needed(truth, self.name)
        if not np.issubdtype(ids.dtype, np.integer) or scores.ndim not in (1, 2) or scores.shape[-1] < 2:
            raise InputError(
                f"{self.name}: the output is {[1, *scores.shape]}, the truth {ids.dtype} {list(ids.shape)}",
                hint="it takes [1, K] or [1, T, K] and token ids",
            )
        ids = ids.reshape(-1)
        # One id against scores for every place: the id follows the last place.
        rows = scores.reshape(-1, scores.shape[-1])
        rows = rows[-1:] if ids.size == 1 else rows
        if ids.size != len(rows):
            raise InputError(
                f"{self.name}: {ids.size} token ids for {len(rows)} places", hint="give one id, or one a place"
            )
        if ids.min() < 0 or ids.max() >= rows.shape[1]:
            worst = int(ids.min() if ids.min() < 0 else ids.max())
            raise InputError(
                f"{self.name}: token {worst} is outside the model's {rows.shape[1]} classes",
                hint="is this the model's own tokenizer?",
            )
        self._bits.append(float(np.mean([self._cost(row, int(token)) for row, token in zip(rows, ids, strict=True)])))

    def _cost(self, row: Floats, token: int) -> float:
        """Return −log2 p(token), at most 23 bits."""
        if not np.isfinite(row[token]) or np.isnan(row).any():
            return _FLOOR_BITS
        if self._kind == "auto":
            self._kind = "probabilities" if _looks_like_probabilities(row) else "logits"
        if self._kind == "logits":
            top = row.max()
            bits = (np.log(np.exp(row - top).sum()) - (row[token] - top)) / np.log(2)
            return min(_FLOOR_BITS, float(bits))
        # Normalised, because a quantized softmax does not sum to 1 and certainty about everything must not win.
        positive = np.maximum(row, 0.0)
        total = positive.sum()
        share = positive[token] / total if total > 0 else 0.0
        return min(_FLOOR_BITS, -float(np.log2(share))) if share > 0 else _FLOOR_BITS


def _looks_like_probabilities(row: Floats) -> bool:
    """Say whether a row is a softmax: within 0–1, with a sum that coarse quantization may have moved, not doubled.

    Logits have a value below 0 or above 1 unless a model is contrived; `scores: logits` settles it.
    """
    return bool(row.min() >= -1e-3 and row.max() <= 1.001 and 0.5 <= row.sum() <= 1.5)


class BitsPerChar(_NextToken):
    """Mean −log2 p of the true next token; bits per character where tokens are characters."""

    name = "bits_per_char"

    def result(self) -> dict[str, MetricScore]:
        return {self.name: mean_score(self._bits, "lower", "bits")}


class Perplexity(_NextToken):
    """2 to the mean −log2 p. `per_sample` holds each sample's own perplexity, whose mean is not the value."""

    name = "perplexity"

    def result(self) -> dict[str, MetricScore]:
        value = 2.0 ** mean_score(self._bits, "lower").value
        return {
            self.name: MetricScore(
                value=value, better="lower", unit="", per_sample=tuple(2.0**bits for bits in self._bits)
            )
        }
