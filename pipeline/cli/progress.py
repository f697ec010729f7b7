"""Progress on standard error: a bar per stage on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from pipeline.flow import Observer, Step
from pipeline.records import Measured, Refusal
from pipeline.stages import STAGES
from targets.records import Failed


@contextmanager
def observer(steps: Sequence[Step]) -> Iterator[Observer]:
    """The display that suits standard error."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress, steps)


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar of things done, on a terminal; call what is yielded once for each."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def timed(what: str, seconds: float) -> Iterator[Callable[[], None]]:
    """A bar of time that will be over at the latest then, on a terminal; call what is yielded for each thing done."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[done]} processes"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task, start, done = progress.add_task(what, total=seconds, done=0), time.monotonic(), [0]

        def step() -> None:
            done[0] += 1
            progress.update(task, completed=min(time.monotonic() - start, seconds), done=done[0])

        yield step


class _Bars:
    """One bar per stage; a step's own progress moves its stage's bar by fractions."""

    def __init__(self, progress: Progress, steps: Sequence[Step]) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        self._told: set[str] = set()
        for stage in STAGES:
            count = sum(step.stage == stage for step in steps)
            if count:
                self._tasks[stage] = progress.add_task(stage, total=count, start=False, note="")
                self._done[stage] = self._kept[stage] = 0

    def started(self, step: Step) -> None:
        self._progress.start_task(self._tasks[step.stage])
        self._progress.update(self._tasks[step.stage], note=step.name if step.name != step.stage else "")

    def progressed(self, step: Step, done: int, total: int) -> None:
        if total:
            share = min(done / total, 1.0)
            self._progress.update(self._tasks[step.stage], completed=self._done[step.stage] + 0.99 * share)

    def noted(self, step: Step, note: str) -> None:
        self._progress.console.print(Text(f"{step.label}: {note}", "dim"))

    def finished(self, step: Step, record: object, *, reused: bool) -> None:
        self._done[step.stage] += 1
        self._kept[step.stage] += reused
        task, done = self._tasks[step.stage], self._done[step.stage]
        total = self._progress.tasks[task].total
        note = ""
        if done == total:
            self._progress.stop_task(task)
            note = (
                "kept"
                if self._kept[step.stage] == done
                else f"{self._kept[step.stage]} kept" * bool(self._kept[step.stage])
            )
        self._progress.update(task, completed=done, note=note)
        if isinstance(record, Refusal) and record.stage == step.stage and not reused:
            self._progress.console.print(Text.assemble(("refused ", "yellow"), f"{step.label}: {record.reason}"))
        for fault in failures(record, self._told) or ():
            self._progress.console.print(Text.assemble(("failed ", "red"), f"{step.label}: {fault}"))


class _Lines:
    """A line when a step starts to take effect and one when it is done: for logs."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._told: set[str] = set()

    def started(self, step: Step) -> None:
        self._started = time.monotonic()

    def progressed(self, step: Step, done: int, total: int) -> None:
        pass

    def noted(self, step: Step, note: str) -> None:
        print(f"{step.label}: {note}", file=sys.stderr, flush=True)

    def finished(self, step: Step, record: object, *, reused: bool) -> None:
        if reused:
            outcome = "kept"
        elif isinstance(record, Refusal):
            outcome = f"refused: {record.reason}"
        elif (failed := failures(record, self._told)) is not None:
            outcome = f"failed: {'; '.join(failed) or 'as above'}"
        else:
            outcome = f"done in {time.monotonic() - self._started:.1f} s"
        print(f"{step.label}: {outcome}", file=sys.stderr, flush=True)


def failures(record: object, told: set[str]) -> list[str] | None:
    """What did not work on a device and what to do about it, each told once; None when all of it worked."""
    found = record.results.values() if isinstance(record, Measured) else (record,)
    texts = [f.message + (f" ({f.hint})" if f.hint else "") for f in found if isinstance(f, Failed)]
    new = [text for text in dict.fromkeys(texts) if text not in told]
    told.update(new)
    return new if texts else None
