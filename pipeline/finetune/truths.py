"""What is known of the right answers before any framework is."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import ConversionFailed


def single_output(names: Sequence[str]) -> None:
    """Raise ConversionFailed when there is no telling which of several outputs the truths are for."""
    if len(names) != 1:
        raise ConversionFailed(
            f"qat.truth: the model has {len(names)} outputs: {', '.join(names)}",
            hint="say what to do with them in a function: qat: {loss: file.py:function}",
        )


def are_classes(truths: np.ndarray[Any, Any]) -> bool:
    """Whether the truths are class numbers, one for each sample."""
    return truths.dtype.kind in "iu" and truths.ndim == 1


def spread(truths: np.ndarray[Any, Any]) -> float:
    """Their variance: errors are judged by it."""
    return max(float(np.var(truths)), 1e-12)
