"""A source whose state the caller carries, as `source.state` in deploy.yaml says: its samples are sequences."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.exporters.source import Arrays, Source
from pipeline.runtimes.state import State, initial, sequences, steps, unrolled
from targets.records import TensorSpec


class StatefulSource:
    """Steps through each sample; inputs and outputs are shown without the state and with an axis of steps."""

    def __init__(self, source: Source, state: State, path: Path) -> None:
        self._source, self._state = source, state
        self.tools: Mapping[str, str] = source.tools
        _check(source, state, path)
        self._show()

    def _show(self) -> None:
        self.inputs = sequences(self._source.inputs, tuple(self._state.values()))
        self.outputs = sequences(self._source.outputs, tuple(self._state))

    @property
    def step_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of one step, with the state: what the file has."""
        return self._source.inputs

    def first_step(self, sample: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        """What the first step takes, which shapes are bound to."""
        return {**next(steps(sample, self._source.inputs)), **initial(self._source.inputs, self._state)}

    def fix_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._source.fix_shapes(shapes)
        self._show()

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        return unrolled(self._source.run, inputs, self._source.inputs, self._state)

    def save(self, path: Path) -> None:
        self._source.save(path)


def _check(source: Source, state: State, path: Path) -> None:
    """Every name is there, and every output fits the input it feeds."""
    outputs, inputs = ({spec.name: spec for spec in specs} for specs in (source.outputs, source.inputs))
    for name, fed in state.items():
        for what, which, known in (("output", name, outputs), ("input", fed, inputs)):
            if which not in known:
                raise InputError(
                    f"{path}: source.state names the {what} {which!r}, the model has {', '.join(known)}",
                    hint="write `state: {output: input it feeds}`",
                )
        given, taken = outputs[name], inputs[fed]
        alike = len(given.shape) == len(taken.shape) or not given.shape
        sizes = zip(given.shape, taken.shape, strict=False)
        if given.dtype != taken.dtype or not alike or any(a != b for a, b in sizes if -1 not in (a, b)):
            raise InputError(
                f"{path}: source.state: {name!r} is {given.dtype} {list(given.shape)}, "
                f"{fed!r} takes {taken.dtype} {list(taken.shape)}",
                hint="write `state: {output: input it feeds}`",
            )
    if set(state.values()) >= set(inputs) or set(state) >= set(outputs):
        raise InputError(f"{path}: source.state leaves no input or no output", hint="name the state alone")
