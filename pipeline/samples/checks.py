"""What is checked of every sample before any converter or runtime sees it.

A converter given a wrong shape or type dies of a segmentation fault (tensorflow#29829, #61828), and one given a NaN
calibrates to NaN; here both have a name.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from targets.records import TensorSpec

Array = NDArray[Any]


def fit(
    sample: str, inputs: Mapping[str, Array], signature: Sequence[TensorSpec]
) -> tuple[dict[str, Array], list[str]]:
    """Return the inputs in the model's dtypes and what was noted on the way; InputError names sample and input."""
    names = [tensor.name for tensor in signature]
    for name in names:
        if name not in inputs:
            raise InputError(f"{sample}: the input {name!r} is missing", hint=f"the model takes {', '.join(names)}")
    for name in inputs:
        if name not in names:
            raise InputError(f"{sample}: the model has no input {name!r}", hint=f"the model takes {', '.join(names)}")
    fitted: dict[str, Array] = {}
    notes: list[str] = []
    for tensor in signature:
        array = inputs[tensor.name]
        _check_shape(sample, tensor, array)
        _check_finite(sample, tensor.name, array)
        fitted[tensor.name] = _to_dtype(sample, tensor, array, notes)
    return fitted, notes


def _check_shape(sample: str, tensor: TensorSpec, array: Array) -> None:
    want, have = tensor.shape, array.shape
    if len(want) == len(have) and all(expected in (-1, got) for expected, got in zip(want, have, strict=True)):
        return
    said = f"{sample}: input {tensor.name!r} is {list(have)}, the model takes {list(want)}"
    raise InputError(said, hint=_shape_hint(want, have))


def _shape_hint(want: tuple[int, ...], have: tuple[int, ...]) -> str:
    if len(want) != len(have):
        return "the number of axes differs: samples are given without the batch axis"
    if want and want[0] not in (-1, 1):
        return f"the model was exported for batches of {want[0]}: export it with a free batch axis or a batch of 1"
    if len(want) == 4:
        if have[3] in (1, 3) and want[1] == have[3] and want[3] != have[3]:
            return "the model takes channels first: add `layout: nchw` as the last step"
        if want[3] == 1 and have[3] == 3:
            return "add the step `grayscale`"
        if want[3] == have[3]:
            return f"add a step such as `resize: [{want[1]}, {want[2]}]`"
    return "change the steps of `preprocess`, or the data"


def _check_finite(sample: str, name: str, array: Array) -> None:
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        place = tuple(int(axis[0]) for axis in np.nonzero(~np.isfinite(array)))
        raise InputError(
            f"{sample}: input {name!r} holds {array[place]} at {list(place)}",
            hint="remove this sample, or mend the step that makes it",
        )


def _to_dtype(sample: str, tensor: TensorSpec, array: Array, notes: list[str]) -> Array:
    have, want = array.dtype, np.dtype(tensor.dtype)
    if have == want:
        return array
    said = f"{sample}: input {tensor.name!r} is {have}, the model takes {want}"
    floats = np.issubdtype(have, np.floating), np.issubdtype(want, np.floating)
    if floats == (True, True):
        cast = array.astype(want) if np.can_cast(have, want) else _narrowed(array, want, said)
        if not np.can_cast(have, want):
            notes.append(f"input {tensor.name!r} is converted from {have} to {want}")
        return cast
    if floats == (False, False) and want != np.bool_ and have != np.bool_:
        limits = np.iinfo(want)
        if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
            raise InputError(f"{said}, and {array.min()} to {array.max()} do not fit", hint="change the data")
        return array.astype(want)
    if floats == (False, True):
        hint = f"say how: `scale: 1/255` makes pixels floats in 0–1, `dtype: {want}` keeps the numbers"
    else:
        hint = f"say how: `dtype: {want}` rounds; a quantized input is scaled by the runtime, give it real values"
    raise InputError(said, hint=hint)


def _narrowed(array: Array, want: np.dtype[Any], said: str) -> Array:
    with np.errstate(over="ignore"):
        cast = array.astype(want)
    if not np.isfinite(cast).all():
        raise InputError(f"{said}, and {np.abs(array).max():.3g} does not fit", hint="scale the data")
    return cast
