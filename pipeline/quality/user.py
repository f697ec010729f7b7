"""A metric of the user's own: `quality.py:onset_f1`.

    def onset_f1(outputs, truth):
        ...
        return f1

outputs: dict of output name -> [N, ...], all samples stacked in order, without the batch axis of 1; a list of arrays
when their shapes differ. Always a dict, also with one output.
truth: [N, ...] stacked likewise, a list when shapes differ, None when the data has none.
Returns a number; or [N] scores, one per sample, whose mean is the value; or a dict of name -> either.

It sees the whole test set at once, so unlike the built-in metrics it holds all outputs in memory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.samples.user_function import call, load_function

from .metrics import Better, MetricScore
from .metrics import Outputs as NamedOutputs

_HINT = "return a number, one number per sample, or a dict of name -> number"


class UserFunction:
    """Gathers the outputs and calls the function once, in `result`; InputError names the file and line it failed at."""

    def __init__(self, *, path: str, better: Better = "higher", unit: str = "", base: Path) -> None:
        self._path = path
        self._function = load_function(path, base)
        self._name = path.rpartition(":")[2]
        self._better: Better = better
        self._unit = unit
        self._outputs: dict[str, list[NDArray[Any]]] = {}
        self._truths: list[NDArray[Any]] = []
        self._count = 0

    def update(self, outputs: NamedOutputs, truth: NDArray[Any] | None) -> None:
        self._count += 1
        for name, array in outputs.items():
            # A copy: runtimes hand out views of buffers that the next inference overwrites.
            own = np.array(array)
            self._outputs.setdefault(name, []).append(own[0] if own.ndim and own.shape[0] == 1 else own)
        if truth is not None:
            self._truths.append(truth)

    def result(self) -> dict[str, MetricScore]:
        if not self._count:
            raise ValueError("no sample has been scored")
        outputs = Outputs({name: _stacked(arrays) for name, arrays in self._outputs.items()})
        returned = call(self._path, self._function, outputs, _stacked(self._truths) if self._truths else None)
        named = returned if isinstance(returned, Mapping) else {self._name: returned}
        if not named:
            raise InputError(f"{self._path} returned no score", hint=_HINT)
        return {str(name): self._score(str(name), value) for name, value in named.items()}

    def _score(self, name: str, value: object) -> MetricScore:
        try:
            scores = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self._path} returned {type(value).__name__} for {name!r}", hint=_HINT) from error
        if scores.shape not in ((), (self._count,)):
            said = f"{self._path} returned {list(scores.shape)} numbers for {name!r}, there are {self._count} samples"
            raise InputError(said, hint=_HINT)
        if not np.isfinite(scores).all():
            raise InputError(f"{self._path} returned {scores.min()} for {name!r}", hint="return finite numbers only")
        per_sample = tuple(scores.tolist()) if scores.ndim else ()
        return MetricScore(value=float(scores.mean()), better=self._better, unit=self._unit, per_sample=per_sample)


class Outputs(dict[str, Any]):
    """Output name -> arrays. NumPy would take a plain dict for one object and compute something from that."""

    def __array__(self, *_: object, **__: object) -> NDArray[Any]:
        raise TypeError(f"outputs is a dict of arrays, not an array: take outputs[{next(iter(self), '')!r}]")


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any] | list[NDArray[Any]]:
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else list(arrays)
