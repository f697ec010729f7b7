"""A Keras model as one flat graph of layers, and who feeds whom in it."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import keras


@dataclass(frozen=True, slots=True)
class Links:
    """Neighbours of each operation (by id) over all its calls; None stands for the model's own inputs and outputs."""

    calls: Counter[int] = field(default_factory=Counter)
    before: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    after: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))


def flat(model: Any) -> Any:
    """The same layers as a functional model without models inside it.

    Raises:
        ValueError: Keras's own, when layers of two inner models have one name.
    """
    model = _functional(model)
    while any(_is_model(operation) for operation in model.operations):
        model = keras.models.clone_model(model, clone_function=_same, call_function=_inlined)
    return model


def links(model: Any) -> Links:
    """Who feeds whom in a flat model."""
    found = Links()
    made_by: dict[int, Any] = {}
    alive = []  # ids are of use only while the tensors live

    def call(operation: Any, *arguments: Any, **named: Any) -> Any:
        answer = operation(*arguments, **named)
        found.calls[id(operation)] += 1
        for tensor in _tensors((arguments, named)):
            producer = made_by.get(id(tensor))
            found.before[id(operation)].append(producer)
            found.after[id(producer)].append(operation)
        for tensor in _tensors(answer):
            made_by[id(tensor)] = operation
            alive.append(tensor)
        return answer

    clone = keras.models.clone_model(model, clone_function=_same, call_function=call)
    for tensor in clone.outputs:
        found.after[id(made_by.get(id(tensor)))].append(None)
    return found


def _functional(model: Any) -> Any:
    # A Sequential model has a functional one inside, but clone_model takes no `call_function` for it.
    return keras.Model(model.inputs[0], model.outputs[0]) if isinstance(model, keras.Sequential) else model


def _is_model(operation: Any) -> bool:
    return isinstance(operation, keras.Sequential | keras.Model) and bool(getattr(operation, "inputs", None))


def _inlined(operation: Any, *arguments: Any, **named: Any) -> Any:
    # Its `call`, unlike `__call__`, leaves its layers' calls in the graph instead of one of its own.
    return _functional(operation).call(*arguments) if _is_model(operation) else operation(*arguments, **named)


def _same(operation: Any) -> Any:
    return operation


def _tensors(nested: Any) -> list[Any]:
    return [leaf for leaf in keras.tree.flatten(nested) if isinstance(leaf, keras.KerasTensor)]
