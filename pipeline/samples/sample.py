"""One sample, before and after preprocessing."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Raw:
    """What a source yields: arrays without a batch axis, untouched by any declared step."""

    id: str
    inputs: Mapping[str, Array]
    truth: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """One sample as the model takes it.

    inputs: by input name, in the model's dtypes, first axis = batch of 1.
    truth: without a batch axis; None when there is none.
    digest: SHA-256 over names, dtypes, shapes and values of the inputs.
    """

    id: str
    inputs: Mapping[str, Array]
    truth: Array | None
    digest: str


def digest_arrays(arrays: Mapping[str, Array]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and values, in the order of the names."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        # repr quotes the name, so no name can run into the next field.
        whole.update(f"{name!r}{array.dtype.str}{array.shape}".encode())
        whole.update(array.data.cast("B") if array.size else b"")
    return whole.hexdigest()
