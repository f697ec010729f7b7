"""The pass over the calibration samples: every watched tensor of every sample is counted once and forgotten."""

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.calibration.accumulate import Accumulator, Binner
from pipeline.calibration.observer import Array, Derived, Observer, Plan, Take
from pipeline.calibration.sketch import Sketch, clipped, merged
from pipeline.errors import InputError

Report = Callable[[int, int], None]

# Half of the samples are of level 0, a quarter of level 1, …: six levels tell what 1/32 of them would have given.
LEVELS = 6


class Sample(Protocol):
    """What is needed of a calibration sample."""

    @property
    def id(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, Array]: ...
    @property
    def digest(self) -> str: ...


class Samples(Protocol):
    """A set that can be gone through more than once."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Sample]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The sketches of each level, and how many samples it had; a level without samples has none."""

    levels: Sequence[Mapping[str, Sketch]]
    counts: Sequence[int]
    samples: tuple[str, ...]  # digests

    def sketches(self, start: int = 0, stop: int = LEVELS) -> dict[str, Sketch]:
        """The sketches over the samples of levels `start` to before `stop`."""
        used = [level for level in self.levels[start:stop] if level]
        return {name: merged(level[name] for level in used if name in level) for name in _names(used)}

    def samples_in(self, start: int = 0, stop: int = LEVELS) -> int:
        """How many samples these levels had."""
        return sum(self.counts[start:stop])


def level_of(digest: str) -> int:
    """The level of a sample by the hash of its content: a choice by chance that no order of the data can change."""
    bits = int(digest[-8:], 16) | 1 << (LEVELS - 1)
    return (bits & -bits).bit_length() - 1


def observe(observer: Observer, samples: Samples, plan: Plan, report: Report) -> Observation:
    """Run every sample, once for each group of tensors. A sample that occurs twice counts once, as it does in a merge.

    Raises:
        InputError: the float model computes NaN or infinity for a sample.
    """
    if len(plan.groups) > 1:
        _give_back_what_is_freed()
    binner = Binner()
    growing: list[dict[str, Accumulator]] = [{} for _ in range(LEVELS)]
    seen: set[str] = set()
    done, total = 0, len(samples) * len(plan.groups)
    for group in plan.groups:
        observer.watch(group)
        seen = set()

        def fresh(seen: set[str] = seen) -> Iterator[tuple[Mapping[str, Array], Take]]:
            nonlocal done
            for sample in samples:
                if sample.digest not in seen:
                    seen.add(sample.digest)
                    yield sample.inputs, _taker(binner, growing[level_of(sample.digest)], sample.id)
                done += 1
                report(done, total)

        observer.observe_all(fresh(), ahead=plan.ahead)
    levels = [_derived(observer, {name: one.sketch() for name, one in level.items()}) for level in growing]
    counts = [sum(level_of(digest) == level for digest in seen) for level in range(LEVELS)]
    return Observation(levels=levels, counts=counts, samples=tuple(sorted(seen)))


def show(observer: Observer, plan: Plan, inputs: Mapping[str, Array], take: Take) -> None:
    """Hand every tensor of one sample to `take`, the derived ones too: these with their source's layout."""
    followers: dict[str, list[tuple[str, Derived]]] = {}
    for name, made in observer.derived.items():
        followers.setdefault(made.source, []).append((name, made))

    def take_with_followers(tensor: str, values: Array) -> None:
        take(tensor, values)
        for name, made in followers.get(tensor, ()):
            take_with_followers(name, np.clip(values, made.low, made.high))

    for group in plan.groups:
        observer.watch(group)
        observer.observe(inputs, take_with_followers)


def _give_back_what_is_freed() -> None:
    """Have glibc return large blocks to the system when they are freed, for the rest of this process.

    Once such a block has been freed, it keeps all others up to 32 MB in fragments of its own: twice the budget. Only
    under a budget, because fresh memory for every tensor costs time.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library: nothing to set
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


_M_MMAP_THRESHOLD = -3  # malloc.h


def _taker(binner: Binner, growing: dict[str, Accumulator], sample: str) -> Callable[[str, Array], None]:
    def take(tensor: str, values: Array) -> None:
        if values.size == 0:
            return
        counted = binner.count(values)
        if not counted.finite:
            raise InputError(
                f"{sample}: the float model computes NaN or infinity in tensor {tensor!r} for this calibration sample",
                hint="take the sample out, or mend the model: no range can be derived from it",
            )
        if tensor not in growing:
            growing[tensor] = Accumulator()
        growing[tensor].add(counted)

    return take


def _derived(observer: Observer, seen: dict[str, Sketch]) -> dict[str, Sketch]:
    """Add what follows from the watched tensors; in the model's order, so that a source is there before its use."""
    for name, made in observer.derived.items():
        if made.source in seen:
            seen[name] = clipped(seen[made.source], made.low, made.high)
    return seen


def _names(levels: Sequence[Mapping[str, Sketch]]) -> list[str]:
    return sorted({name for level in levels for name in level})
