"""A float model that shows its tensors, and in which groups it is to show them under a budget of memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Take = Callable[[str, Array], None]  # tensor, values


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A tensor whose sketch follows from another's: the same values, clipped."""

    source: str
    low: float = -float("inf")
    high: float = float("inf")


class Observer(ABC):
    """One float model file. `tensors` are those to be watched: name → bytes; `derived` follow from them.

    A tensor of unknown size counts as large as the largest known one.
    """

    tensors: Mapping[str, int]
    derived: Mapping[str, Derived]
    # Whether it can run a sample while the one before is counted, with the tensors of both in memory.
    can_run_ahead = False

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path, self.scratch = path, scratch

    @property
    def model_bytes(self) -> int:
        return self.path.stat().st_size

    @abstractmethod
    def watch(self, names: Sequence[str]) -> None:
        """Load the model so that `observe` shows these tensors; lets go of what was loaded before."""

    @abstractmethod
    def observe(self, inputs: Mapping[str, Array], take: Take) -> None:
        """Run one sample and hand each watched tensor to `take`, which must not keep the array: it is not copied."""

    def observe_all(self, samples: Iterable[tuple[Mapping[str, Array], Take]], *, ahead: bool) -> None:
        """`observe` samples one after the other, each with its own `take`; `ahead`: one runs while one is taken."""
        for inputs, take in samples:
            self.observe(inputs, take)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which tensors are watched together, one pass over the data for each group, and what that will take.

    `peak_bytes` is what calibration adds to the process: the loaded model, the watched tensors, sketches and buffers.
    `ahead`: a sample is run while the one before is counted, because the budget has room for the tensors of both.
    """

    groups: tuple[tuple[str, ...], ...]
    peak_bytes: int
    budget_bytes: int
    ahead: bool = False

    @property
    def over_budget(self) -> bool:
        return self.peak_bytes > self.budget_bytes


def plan(observer: Observer, levels: int, budget_bytes: int) -> Plan:
    """Groups of tensors in the order of the model, each as large as the budget allows and never empty."""
    fixed = _MODEL_COPIES * observer.model_bytes + _BUFFERS_BYTES
    fixed += len(observer.tensors) * levels * _SKETCH_BYTES
    largest = max(observer.tensors.values(), default=0)
    # While a layer runs, its input, its output and a copy in the kernel's own layout exist beside what is watched.
    fixed += 3 * largest
    room = budget_bytes - fixed
    groups: list[list[str]] = [[]]
    held, most = 0, 0
    for name, size in observer.tensors.items():
        if groups[-1] and held + size > room:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
        most = max(most, held)
    ahead = observer.can_run_ahead and 2 * most <= room
    return Plan(
        groups=tuple(tuple(group) for group in groups if group),
        peak_bytes=fixed + (2 * most if ahead else most),
        budget_bytes=budget_bytes,
        ahead=ahead,
    )


# The file as it is parsed, as it is handed over, and as the runtime packs its weights.
_MODEL_COPIES = 3
# Keys, counts and the runtime's own workspace.
_BUFFERS_BYTES = 16_000_000
# Of one tensor at one level: 30 powers of two with either sign are 30 kB; most use fewer.
_SKETCH_BYTES = 20_000
