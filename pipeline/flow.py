"""Which steps a run has, in what order, and which of them are already done. Knows no stage's inside.

A step's fingerprint is a hash of its stage's version, its settings, the tools it uses, and the fingerprints of the
steps it needs. All of that is known before anything runs, so the plan of a run (`--dry-run`) is exact. A step whose
fingerprint has a record is not run again, unless it observes the world (push, measure) or the user asks for it.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from pipeline import codec
from pipeline.records import Refusal
from pipeline.stages import STAGES
from pipeline.store import Store

Results = Mapping["Step", Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One unit of work: at most one record, reused while its fingerprint stays the same.

    `run` gets the records of `needs` (by step) and a callback for progress (done, total); it returns the record or a
    `Refusal`. A step one of whose `needs` was refused is not run; its record is that refusal, unless `tolerant`.
    """

    stage: str
    name: str
    run: Callable[[Results, "Progress"], Any]
    records: tuple[type[Any], ...]
    needs: tuple["Step", ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    reusable: bool = True
    tolerant: bool = False

    @property
    def label(self) -> str:
        return f"{self.stage} {self.name}" if self.name != self.stage else self.stage

    @cached_property
    def fingerprint(self) -> str:
        described = {
            "stage": self.stage,
            "name": self.name,
            "version": self.version,
            "settings": self.settings,
            "tools": self.tools,
            "needs": [need.fingerprint for need in self.needs],
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


class Progress(Protocol):
    """How far a running step is; `total` 0 when unknown. `note` is something the user should know now."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


class Observer(Protocol):
    """Told what happens; the CLI's progress display is one."""

    def started(self, step: Step) -> None: ...
    def progressed(self, step: Step, done: int, total: int) -> None: ...
    def noted(self, step: Step, note: str) -> None: ...
    def finished(self, step: Step, record: object, *, reused: bool) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A step and what a run would do with it."""

    step: Step
    reuse: bool


def forced_stages(start: str | None) -> frozenset[str]:
    """The stages that `--from` wants done again."""
    return frozenset(STAGES[STAGES.index(start) :]) if start else frozenset()


def plan(steps: Sequence[Step], store: Store, forced: Collection[str] = ()) -> list[Planned]:
    """What a run would do now. A step is reused when it has a usable record and nothing before it runs again."""
    kept: dict[Step, Any] = {}
    for step in steps:
        kept[step] = _kept(step, kept, store, forced)
    return [Planned(step=step, reuse=record is not None) for step, record in kept.items()]


def execute(steps: Sequence[Step], store: Store, observer: Observer, forced: Collection[str] = ()) -> dict[Step, Any]:
    """Run the steps in order, reusing what `plan` would, and return every step's record.

    Raises:
        DeployError: whatever a step raises; records of finished steps are kept, so the next run goes on from there.
    """
    results: dict[Step, Any] = {}
    kept: dict[Step, Any] = {}
    for step in steps:
        record = kept[step] = _kept(step, kept, store, forced)
        if record is None:
            observer.started(step)
            record = _run(step, results, observer)
            if step.reusable and not (isinstance(record, Refusal) and record.transient):
                made_from = _identities(step, results)
                store.write_record(step.stage, step.name, step.fingerprint, record, made_from)
        results[step] = record
        observer.finished(step, record, reused=kept[step] is not None)
    return results


def _run(step: Step, results: Results, observer: Observer) -> Any:
    if not step.tolerant:
        for need in step.needs:
            if isinstance(results[need], Refusal):
                return results[need]

    def report(done: int, total: int, note: str = "") -> None:
        if note:
            observer.noted(step, note)
        observer.progressed(step, done, total)

    return step.run({need: results[need] for need in step.needs}, report)


def _kept(step: Step, kept: Mapping[Step, Any], store: Store, forced: Collection[str]) -> Any:
    """The record to use again, or None: made under this fingerprint from the very records that its needs have now.

    The fingerprint alone does not say that: a converter may answer differently the second time, and a step killed
    for lack of memory has no record, while what was made without it has one.
    """
    if not step.reusable or step.stage in forced or any(kept[need] is None for need in step.needs):
        return None
    kinds = (*step.records, Refusal)
    return store.read_record(step.stage, step.name, step.fingerprint, kinds, _identities(step, kept))


def _identities(step: Step, records: Results) -> dict[str, str]:
    return {need.label: hashlib.sha256(codec.encode(records[need])).hexdigest() for need in step.needs}
