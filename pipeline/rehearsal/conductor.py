"""Makes the planned faults when their time has come, while a run is under way in another thread."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pipeline.errors import DeployError
from pipeline.flow import Observer, Step
from pipeline.rehearsal.draw import PlannedFault
from targets.lab.faults import FAULTS, inflict
from targets.lab.lab import ask
from targets.lab.state import load_lab

_OWN = ("push", "measure")  # the stages that every device goes through by itself
_LOOK_S = 0.02  # between two looks at the bytes that have passed: a fast link brings a megabyte meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What came of one planned fault."""

    planned: PlannedFault
    at_s: float | None  # since the run's start; None: it did not happen
    step: str  # what the run was doing then; empty when its time never came
    error: str = ""  # why it could not be made


class Conductor:
    """An observer of the run that also makes the faults; use it as a context manager around the run.

    A fault that waits for nothing but a step is made before the step goes on, so that it holds for all of it.
    """

    def __init__(self, lab: str, planned: Sequence[PlannedFault], display: Observer) -> None:
        self._lab = lab
        self._planned = planned
        self._display = display
        self._start = time.monotonic()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._happened: dict[int, Happened] = {}
        self._begun: set[int] = set()
        self._step = ""
        self._stage_of = ("", "")

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        self._begin([number for number, fault in enumerate(self._planned) if fault.step is None])
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def started(self, step: Step) -> None:
        self._step, self._stage_of = step.label, (step.stage, step.name)
        self._display.started(step)
        begun = [
            number
            for number, fault in enumerate(self._planned)
            if fault.step == step.stage and (step.stage not in _OWN or step.name == fault.device)
        ]
        self._begin([number for number in begun if number not in self._begun])

    def progressed(self, step: Step, done: int, total: int) -> None:
        self._display.progressed(step, done, total)

    def noted(self, step: Step, note: str) -> None:
        self._display.noted(step, note)

    def finished(self, step: Step, record: object, *, reused: bool) -> None:
        self._display.finished(step, record, reused=reused)

    def happened(self) -> tuple[Happened, ...]:
        """Every planned fault, in the order of the schedule."""
        never = {number: Happened(planned=fault, at_s=None, step="") for number, fault in enumerate(self._planned)}
        return tuple({**never, **self._happened}.values())

    def _begin(self, numbers: Sequence[int]) -> None:
        self._begun.update(numbers)
        for number in numbers:
            fault = self._planned[number]
            at_once = not (fault.after_s or fault.bytes or FAULTS[fault.fault].lasting)
            if at_once:
                self._make(number)
            if not at_once or fault.restore_after_s is not None:
                thread = threading.Thread(target=self._follow, args=(number, at_once))
                self._threads.append(thread)
                thread.start()

    def _follow(self, number: int, made: bool) -> None:
        fault = self._planned[number]
        if not made:
            if self._over.wait(fault.after_s) or not self._bytes_have_passed(fault):
                return
            self._make(number)
        if fault.restore_after_s is not None and not self._over.wait(fault.restore_after_s):
            inflict(load_lab(self._lab), fault.device, "restore")

    def _bytes_have_passed(self, fault: PlannedFault) -> bool:
        """Wait until they have; False when the run was over first."""
        if not fault.bytes:
            return True
        lab = load_lab(self._lab)
        before = None
        while not self._over.wait(_LOOK_S):
            passed = ask(lab, {"op": "status"})[fault.device]["passed_bytes"]
            before = passed if before is None else before
            if passed - before >= fault.bytes:
                return True
        return False

    def _is_over(self, fault: PlannedFault) -> bool:
        """Whether the step that the fault is meant for has ended: it would prove nothing any more."""
        stage, name = self._stage_of
        return fault.step is not None and (stage != fault.step or (stage in _OWN and name != fault.device))

    def _make(self, number: int) -> None:
        fault, error = self._planned[number], ""
        at_s, step = time.monotonic() - self._start, self._step
        if self._is_over(fault):
            self._happened[number] = Happened(planned=fault, at_s=None, step=step)
            return
        try:
            inflict(load_lab(self._lab), fault.device, fault.fault, fault.value)
        except DeployError as refused:
            error = refused.message
        self._happened[number] = Happened(planned=fault, at_s=at_s, step=step, error=error)
