"""The report in a terminal: one table per device, then a line for each candidate that is not to be shipped.

Needs rich, so only a command that prints a report imports it. Rich leaves colours out by itself when the output is
not a terminal, and `NO_COLOR` is honoured.
"""

import io

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from pipeline.records import Report, Status, VerdictKind
from pipeline.reporting.comparison import Row, Table, tables
from pipeline.reporting.headline import STATUS_SIGNS, STATUS_WORDS, VERDICT_SIGNS, by_target, headline
from pipeline.reporting.printable import printable

_VERDICT_STYLE: dict[VerdictKind, str] = {
    "pass": "green",
    "fail": "bold red",
    "refused": "magenta",
    "inconclusive": "yellow",
}
_STATUS_STYLE: dict[Status, str] = {
    "pass": "bold green",
    "fail": "bold red",
    "device-error": "bold red",
    "inconclusive": "bold yellow",
}
# What gives way first when the terminal is too narrow.
_EXPENDABLE = ("p90", "fps", "net", "energy", "memory", "sqnr")
_SHORT = {
    "Latency, median": "Latency",
    "Peak memory": "Memory",
    "Energy per inference": "Energy",
    "SQNR vs float": "SQNR",
}


class ReportView:
    """A rich renderable: `console.print(ReportView(report))`."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        report = self._report
        for table in tables(report):
            yield from _section(table, console, options)
        for search in report.searches:
            for finding in search.findings:
                yield Text.assemble((f"{search.recipe}: ", "bold"), printable(finding))
        for name, data in (("calibration data", report.calibration), ("test data", report.test)):
            for finding in data.findings:
                yield Text.assemble((f"! {name}: ", "yellow"), printable(finding))
        for format, calibrated in report.calibrations.items():
            for finding in calibrated.findings:
                yield Text.assemble((f"! calibration of {format}: ", "yellow"), printable(finding))
        yield Text.assemble(
            (f"{STATUS_SIGNS[report.status]} {STATUS_WORDS[report.status]}", _STATUS_STYLE[report.status]),
            "  ",
            (printable(headline(report)), "bold"),
        )
        if picks := by_target(report):
            yield Text(f"  {printable(picks)}")


def plain(report: Report, width: int = 100) -> str:
    """The same as text without colour."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, legacy_windows=False).print(ReportView(report))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _section(table: Table, console: Console, options: ConsoleOptions) -> RenderResult:
    yield Text(printable(table.target or "on the host"), style="bold")
    if table.failure:
        yield Text.assemble(("✗ no numbers: ", "bold red"), printable(table.failure.message))
        if table.failure.hint:
            yield Text(f"  {printable(table.failure.hint)}")
        yield ""
        return
    if table.emulated:
        yield Text(f"times are those of an emulated device: {printable(table.emulated)}", style="yellow")
    yield _widest(table, console, options)
    if table.metered:
        yield Text(printable(table.metered), style="dim")
    for note in table.notes:
        yield Text(f"— {printable(note)}", style="dim")
    reasons: dict[tuple[VerdictKind, str], list[str]] = {}
    for row in table.rows:
        if row.verdict != "pass":
            reasons.setdefault((row.verdict, row.reason), []).append(row.recipe)
    for (verdict, reason), recipes in reasons.items():
        # One cause that stops everything, such as a device that is not there, is said once.
        who = printable(recipes[0]) if len(recipes) == 1 else f"{len(recipes)} recipes"
        sign = (f"{VERDICT_SIGNS[verdict]} {who}: ", _VERDICT_STYLE[verdict])
        yield Text.assemble(sign, printable(reason))
    yield ""


def _widest(table: Table, console: Console, options: ConsoleOptions) -> RenderableType:
    """The table with as many columns as the terminal has room for, none of them cut."""
    dropped: list[str] = []
    # The first task metric stays to the end: the choice is made by it.
    metrics = [column.key for column in table.columns if column.key.startswith("metric:")]
    measured = ("energy",) if table.metered else ()  # whoever asked for it wants to see it
    expendable = [key for key in _EXPENDABLE if key not in measured]
    for key in ("", *expendable, *measured, *reversed(metrics[1:])):
        dropped.append(key)
        grid = _grid(table, dropped)
        if console.measure(grid, options=options.update(max_width=1000)).maximum <= options.max_width:
            break
    return grid


def _grid(table: Table, dropped: list[str]) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    grid.add_column("Recipe", no_wrap=True)
    grid.add_column("Verdict", no_wrap=True)
    kept = [i for i, column in enumerate(table.columns) if column.key not in dropped]
    for i in kept:
        grid.add_column(_SHORT.get(table.columns[i].title, printable(table.columns[i].title)), justify="right")
    for row in table.rows:
        grid.add_row(*_cells(row, kept), style="bold" if row.chosen else "")
    return grid


def _cells(row: Row, kept: list[int]) -> list[RenderableType]:
    verdict = Text(f"{VERDICT_SIGNS[row.verdict]} {row.verdict}", style=_VERDICT_STYLE[row.verdict])
    cells: list[RenderableType] = [Text(f"{'▶' if row.chosen else ' '} {printable(row.recipe)}"), verdict]
    for i in kept:
        cell = row.cells[i]
        # "(−0.2 %)" after "−0.06" is one number too many for a terminal.
        change = cell.change.split(" (")[0]
        cells.append(Text(f"{cell.text} {change}".rstrip(), no_wrap=True))
    return cells
