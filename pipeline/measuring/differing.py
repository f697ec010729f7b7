"""Where a device begins to answer otherwise than the host: its layers are compared, ever closer around the first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from pipeline.measuring.subjects import Subject
from pipeline.stages.judging import MAX_ANSWER_STEPS
from pipeline.store import Store
from pipeline.worker import Worker
from targets.parts import Distance, Distances
from targets.records import BenchRequest

AT_ONCE = 8  # layers watched in one run: few, for watched tensors stay in memory and are not fused with others
_ROUNDING = 1e-3  # of a step: three steps of a dequantized output are 3.0000002
ANY_STEPS = 0.5  # less is float rounding; integers differ by whole steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One tensor inside a model, the op that makes it, and how far the device's is from the host's."""

    number: int  # in the order of running, from 0
    name: str
    op: str
    steps: float
    finite: bool

    @property
    def short_name(self) -> str:
        """Without the names of ops that a converter fused into it."""
        return self.name.split(";")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """How a device's answer comes to differ."""

    target: str
    model: str
    runtime: str
    layers: int  # that can be watched
    runs: int
    answer: Distance  # the worst of the model's own outputs, nothing watched
    first: Layer | None  # the first that differs at all
    first_beyond: Layer | None  # the first that differs by more than the gate tolerates
    seen: tuple[Layer, ...]  # all that were looked at, in the order of running


class Compares(Protocol):
    """What this needs of a device; `targets.device.Device` has it."""

    def push(self, path: Path, digest: str) -> bool:
        """Bring a file there."""

    def distances(self, request: BenchRequest, deadline_s: float) -> Distances:
        """Each output against the host's."""


class Search:
    """Looks at layers of one model on one device; keeps what it saw."""

    def __init__(self, device: Compares, subject: Subject, request: BenchRequest, deadline_s: float, store: Store):
        self._device, self._subject, self._request, self._deadline_s = device, subject, request, deadline_s
        self._store = store
        self.runs = 0
        self.seen: dict[str, Distance] = {}
        self.runtime = ""

    def look(self, worker: Worker, keys: Sequence[str]) -> Mapping[str, Distance]:
        """The distances of these tensors and of the model's own outputs, all in one run."""
        with self._store.workspace() as folder:
            watched, expected = folder / "watched", folder / "expected"
            names = worker.call(
                "pipeline.measuring.layers:watch",
                format=self._subject.format,
                model=self._subject.paths[self._subject.blob],
                keys=list(keys),
                inputs=self._subject.paths[self._subject.inputs],
                watched=watched,
                expected=expected,
            )
            model, answers = self._store.add_model(self._subject.format, watched), self._store.add_file(expected)
        for digest in (model.blob, *model.beside, answers, self._subject.inputs):
            self._device.push(self._store.path(digest), digest)
        request = replace(self._request, blob=model.blob, beside=tuple(model.beside), expected=answers)
        found = self._device.distances(request, self._deadline_s)
        self.runtime = f"{found.runtime} {found.runtime_version}" + f" with {found.delegate}" * bool(found.delegate)
        self.runs += 1
        told = dict(zip(names, found.outputs, strict=True))
        self.seen.update(told)
        return told


def first_differing(
    look: Callable[[Sequence[str]], Mapping[str, Distance]],
    keys: Sequence[str],
    limit: float,
    seen: Mapping[str, Distance],
) -> int | None:
    """The place of the first of `keys` that is beyond `limit`, when the last of those around it are known.

    A bisection that looks at several places in each run. Where a difference comes and goes, as behind a ReLU, it is one
    whose predecessor looked at is alike; a layer that nobody looked at may have differed before.
    """
    known = [number for number, key in enumerate(keys) if key in seen and _beyond(seen[key], limit)]
    high = min(known, default=len(keys))
    alike = [number for number in range(high) if keys[number] in seen]
    low = max(alike, default=-1)
    while high - low > 1:
        places = spread(low, high)
        told = look([keys[place] for place in places])
        wrong = [place for place in places if _beyond(told[keys[place]], limit)]
        high = min(wrong, default=high)
        low = max([low, *(place for place in places if place < high)])
    return high if high < len(keys) else None


def spread(low: int, high: int) -> list[int]:
    """At most `AT_ONCE` places strictly between, as even as can be."""
    inside = high - low - 1
    if inside <= AT_ONCE:
        return list(range(low + 1, high))
    return [low + (high - low) * part // (AT_ONCE + 1) for part in range(1, AT_ONCE + 1)]


def where_different(device: Compares, subject: Subject, request: BenchRequest, deadline_s: float, store: Store,
                    target: str) -> Differing:  # fmt: skip
    """Compare the answer, and where it differs, the layers.

    Raises what the device raises, ConversionFailed when a copy of the model does not run here, and WorkerDied.
    """
    search = Search(device, subject, request, deadline_s, store)
    with Worker() as worker:
        layers: list[tuple[str, str, str]] = worker.call(
            "pipeline.measuring.layers:layers", format=subject.format, model=subject.paths[subject.blob]
        )
        answers = search.look(worker, []).values()
        answer = Distance(steps=max(own.steps for own in answers), finite=all(own.finite for own in answers))
        keys = [key for key, _, _ in layers]
        places: list[int | None] = [None, None]
        if _beyond(answer, ANY_STEPS):
            limits = (ANY_STEPS, MAX_ANSWER_STEPS) if _beyond(answer, MAX_ANSWER_STEPS) else (ANY_STEPS,)
            for number, limit in enumerate(limits):
                places[number] = first_differing(lambda wanted: search.look(worker, wanted), keys, limit, search.seen)
    seen = {
        number: Layer(number=number, name=name, op=op, steps=search.seen[key].steps, finite=search.seen[key].finite)
        for number, (key, name, op) in enumerate(layers)
        if key in search.seen
    }
    first, beyond = (None if place is None else seen[place] for place in places)
    return Differing(
        target=target,
        model=subject.name,
        runtime=search.runtime,
        layers=len(layers),
        runs=search.runs,
        answer=answer,
        first=first,
        first_beyond=beyond,
        seen=tuple(seen[number] for number in sorted(seen)),
    )


def tolerated(found: Differing) -> bool:
    """Whether the gate would let the answer pass."""
    return not _beyond(found.answer, MAX_ANSWER_STEPS)


def told(found: Differing) -> list[str]:
    """The outcome in sentences."""
    if not _beyond(found.answer, ANY_STEPS):
        return [f"the answer is the host's ({found.answer.steps:.2g} quantization steps)"]
    lines = [f"the answer is {_apart(found.answer)}"]
    if found.first is None:
        lines.append(
            "no layer differs while it is watched: the runtime joins ops otherwise, and watched ops are not joined"
        )
        return lines
    lines.append(f"first to differ is {_called(found.first)}, layer {found.first.number + 1} of {found.layers}")
    if found.first_beyond and found.first_beyond != found.first:
        beyond = found.first_beyond
        lines.append(
            f"beyond the tolerated {MAX_ANSWER_STEPS:g} steps is first {_called(beyond)}, layer {beyond.number + 1}"
        )
    return lines


def _called(layer: Layer) -> str:
    far = f"by {_steps(layer.steps)}" if layer.finite else "NaN or infinity"
    return f"{layer.op} {layer.short_name!r}, {far}"


def _apart(found: Distance) -> str:
    return f"{_steps(found.steps)} away from the host's" if found.finite else "NaN or infinity"


def _steps(steps: float) -> str:
    return f"{steps:.3g} quantization step" + "s" * (steps != 1)


def _beyond(found: Distance, limit: float) -> bool:
    return not found.finite or found.steps > limit + _ROUNDING
