"""A rehearsal in a terminal and as JSON: what was done to each device, what it did then, and what it does now."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from pipeline import codec
from pipeline.quantities import size
from pipeline.rehearsal.conductor import Happened
from pipeline.rehearsal.draw import PlannedFault
from pipeline.rehearsal.outcome import Outcome, Rehearsal
from pipeline.rehearsal.schedule import fault_text
from pipeline.reporting.printable import printable


def rehearsal_json(found: Rehearsal) -> str:
    """Canonical JSON of the record, and its verdict."""
    return codec.canonical({**codec.plain(found), "verdict": found.verdict}).decode()


def plan_json(planned: Sequence[PlannedFault]) -> str:
    return codec.canonical([codec.plain(fault) for fault in planned]).decode()


class PlanView:
    """A rich renderable of what would happen."""

    def __init__(self, planned: Sequence[PlannedFault]) -> None:
        self._planned = planned

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = _table("device", "fault", "when", "mended")
        for fault in self._planned:
            mended = f"after {seconds(fault.restore_after_s)}" if fault.restore_after_s else "at the end"
            table.add_row(fault.device, call(fault), when(fault), mended)
        yield table


class RehearsalView:
    """A rich renderable: `console.print(RehearsalView(rehearsal))`."""

    def __init__(self, found: Rehearsal) -> None:
        self._found = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = self._found
        by_device: dict[str, list[Happened]] = {name: [] for name in found.after}
        for one in found.happened:
            by_device.setdefault(one.planned.device, []).append(one)
        table = _table("device", "what happened to it", "what it did then", "what it does now")
        untroubled = [name for name, happened in by_device.items() if not happened and _well(found, name)]
        for name, happened in by_device.items():
            if name not in untroubled:
                outcomes = [_outcome(name, run.get(name)) for run in (found.during, found.after)]
                table.add_row(name, _lines(map(_told, happened)), *outcomes)
        if untroubled:
            table.add_row(_names(untroubled), Text("nothing", style="dim"), Text("answers"), Text("answers", "green"))
        yield table
        broken = {name: files for name, files in found.half_written.items() if files}
        for name, files in broken.items():
            yield Text(f"✗ half-written on {name}: {', '.join(files)}", style="bold red")
        if not broken:
            yield Text(f"no half-written file on {_many(len(found.half_written), 'device')}", style="dim")
        troubled = {one.planned.device for one in found.happened if one.at_s is not None and not one.error}
        recovered = sum(outcome.good for outcome in found.after.values())
        told = f"{recovered} of {len(found.after)} devices answer as they should after trouble on {len(troubled)}"
        if missing := sum(one.at_s is None or bool(one.error) for one in found.happened):
            told += f", but {missing} of {_many(len(found.happened), 'fault')} did not happen"
        sign, style = _SIGNS[found.verdict]
        yield Text.assemble((f"{sign} ", style), (told, "bold"), (f"  (lab {found.lab}, seed {found.seed})", "dim"))


_SIGNS = {"pass": ("✓", "bold green"), "fail": ("✗", "bold red"), "inconclusive": ("?", "bold yellow")}


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)


def call(fault: PlannedFault) -> str:
    """A fault as one would type it."""
    return fault_text(fault.fault, fault.value)


def when(fault: PlannedFault) -> str:
    """The conditions in words, in the order they are waited for."""
    parts = [f"when {fault.step} begins" if fault.step else ""]
    parts.append(f"after {seconds(fault.after_s)}" if fault.after_s else "")
    parts.append(f"after {size(fault.bytes)}" if fault.bytes else "")
    return ", ".join(filter(None, parts)) or "from the start"


def seconds(value_s: float) -> str:
    return f"{round(value_s, 1):g} s"  # a schedule is no stop watch


def _told(one: Happened) -> Text:
    fault = call(one.planned)
    if one.at_s is None:
        why = "its step was over" if one.step else "its time never came"
        return Text(f"{fault}: {why} ({when(one.planned)})", style="yellow")
    if one.error:
        return Text(printable(f"{fault}: could not be made: {one.error}"), style="red")
    at = seconds(one.at_s) + (f", {one.step}" if one.step else "")
    return Text.assemble(fault, (f"  at {at}", "dim"))


def _outcome(name: str, outcome: Outcome | None) -> Text:
    if outcome is None:
        return Text("not reached", style="yellow")
    if outcome.failures:
        # The name stands in the first column already.
        told = [f"{failed.code}: {failed.message.removeprefix(f'{name}: ').strip()}" for failed in outcome.failures]
        return _lines(Text(printable(text), style="red") for text in told)
    if outcome.wrong:
        return Text(f"{outcome.wrong} of {outcome.wrong + outcome.answers} candidates answer wrong", style="bold red")
    return Text(f"answers ({_many(outcome.answers, 'candidate')})", style="green")


def _lines(texts: Iterable[Text]) -> Text:
    return Text("\n").join(texts)


def _well(found: Rehearsal, name: str) -> bool:
    outcomes: Mapping[str, Outcome] = found.during
    return name in outcomes and outcomes[name].good and found.after[name].good


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
