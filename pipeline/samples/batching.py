"""The batch axis: sources may give it or not, steps never see it, models mostly want it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from targets.records import TensorSpec

Array = NDArray[Any]


def without_batch(sample: str, tensor: TensorSpec, array: Array) -> tuple[Array, bool]:
    """Return the array without a batch axis of 1, and whether one has to be put in front of what the steps make.

    The rank decides. An array of the model's own rank whose first axis is no batch stays as it is: the state
    [2, 1, 128] of a recurrent net, or a scalar. InputError for a batch of several samples.
    """
    if array.ndim != len(tensor.shape):
        return array, True  # one axis less is the usual case; any other rank is reported by the check of the shape
    if array.ndim and array.shape[0] == 1 and tensor.shape[0] in (1, -1):
        return np.asarray(array[0]), True
    if array.ndim > 1 and tensor.shape[0] in (1, -1):
        raise InputError(
            f"{sample}: input {tensor.name!r} has a batch axis of {array.shape[0]}",
            hint="give one sample at a time, without the batch axis or with a batch of 1",
        )
    return array, False
