"""The report as GitHub Markdown, for a pull request or a wiki."""

import re

from pipeline.records import DataSummary, Report
from pipeline.reporting.calibration import described
from pipeline.reporting.comparison import Cell, Table, tables
from pipeline.reporting.headline import STATUS_SIGNS, STATUS_WORDS, VERDICT_SIGNS, by_target, headline, why
from pipeline.reporting.printable import printable
from pipeline.reporting.searching import Grid, searches
from targets.records import Facts, Failed

# What GitHub would read as markup, an HTML tag, a table border, a mention or an issue number.
_MARKUP = re.compile(r"([\\`*_\[\]<>#|~@$&])")


def markdown(report: Report) -> str:
    parts = [
        f"# {escape(report.name)}: {STATUS_SIGNS[report.status]} {STATUS_WORDS[report.status]}",
        f"**{escape(headline(report))}**",
        *_lines(by_target(report)),
        *_lines(why(report)),
        f"Objective: {report.objective}",
    ]
    for table in tables(report):
        parts += _section(report, table)
    for search in searches(report):
        parts.append(f"## How {escape(search.recipe)} was chosen")
        parts.append("\n".join(f"- {escape(finding)}" for finding in search.findings))
        parts += [*_grid(search.best), *_grid(search.blocks)]
    parts += _refusals(report)
    parts += _observed(report)
    parts += ["## Provenance", "\n".join(f"- {name}: {value}" for name, value in _provenance(report))]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Any text as one line that GitHub shows as it is, also inside a table cell."""
    return _MARKUP.sub(r"\\\1", printable(text)).strip()


def _lines(text: str) -> list[str]:
    return [escape(text)] if text else []


def _section(report: Report, table: Table) -> list[str]:
    parts = [f"## {escape(table.target or 'On the host')}"]
    if table.failure:
        return [*parts, f"✗ No numbers from this device: {escape(_failure(table.failure))}"]
    facts = report.facts.get(table.target)
    if isinstance(facts, Facts):
        parts.append(escape(f"{facts.cpu_model}, {facts.arch}, {facts.os}"))
    if table.emulated:
        parts.append(f"⚠ Times are those of an emulated device: {escape(table.emulated)}")
    titles = [c.title + (" (emulated)" if table.emulated and c.wall_clock else "") for c in table.columns]
    rows = [["Recipe", "Verdict", *map(escape, titles), "Why"]]
    for row in table.rows:
        marks = f"{' ← **chosen**' if row.chosen else ''}{' (baseline)' if row.baseline else ''}"
        verdict = f"{VERDICT_SIGNS[row.verdict]} {row.verdict}"
        rows.append([escape(row.recipe) + marks, verdict, *map(_cell, row.cells), escape(row.reason)])
    rule = ["---", "---", *("--:" for _ in titles), "---"]
    parts.append("\n".join(f"| {' | '.join(line)} |" for line in [rows[0], rule, *rows[1:]]))
    parts += _lines(table.metered)
    parts += [f"— {escape(note)}" for note in table.notes]
    return parts


def _grid(grid: Grid) -> list[str]:
    rows = [[escape(cell) for cell in row] for row in grid.rows]
    if grid.chosen is not None:
        rows[grid.chosen][0] += " ← **chosen**"
    lines = [[escape(column) for column in grid.columns], ["---", *("--:" for _ in grid.columns[1:])], *rows]
    return [escape(grid.title), "\n".join(f"| {' | '.join(line)} |" for line in lines)]


def _cell(cell: Cell) -> str:
    return escape(" ".join(part for part in (cell.text, cell.interval) if part)) + (
        f" **{escape(cell.change)}**" if cell.change else ""
    )


def _failure(failed: Failed) -> str:
    return failed.message + (f" ({failed.hint})" if failed.hint else "")


def _refusals(report: Report) -> list[str]:
    refused = [c for c in report.candidates if c.verdict != "pass"]
    if not refused:
        return []
    parts = ["## Not shipped, and why"]
    for candidate in refused:
        lines = [f"- **{escape(candidate.recipe)}** {candidate.verdict}: {escape(candidate.reason)}"]
        # An indented block needs no fence that the converter's own output could close.
        lines += ["", *(f"      {printable(line)}" for line in candidate.last_output)]
        parts.append("\n".join(lines).rstrip())
    return parts


def _observed(report: Report) -> list[str]:
    lines = [f"- {f}: {escape(found)}" for f, c in report.calibrations.items() for found in c.findings]
    return ["## Calibration", "\n".join(lines)] if lines else []


def _provenance(report: Report) -> list[tuple[str, str]]:
    return [
        ("Source", f"{escape(report.source.path)} ({escape(report.source.kind)}), sha256 `{report.source.sha256}`"),
        ("Calibration", _data(report.calibration)),
        ("Test", _data(report.test)),
        *(
            (f"Calibration of {f}", f"{escape(described(c))} `{c.sketch_digest}`")
            for f, c in report.calibrations.items()
        ),
        ("Budgets", escape(", ".join(f"{name} {value}" for name, value in report.budgets.items())) or "none"),
        ("Tools", escape(", ".join(f"{name} {version}" for name, version in report.tools.items()))),
        ("Release", f"{escape(report.released)} `{report.release}`"),
        ("Date", escape(report.created)),
    ]


def _data(data: DataSummary) -> str:
    findings = "".join(f"; {escape(finding)}" for finding in data.findings)
    return (
        f"{data.count} samples of {escape(data.path)}, sha256 `{data.digest}`, "
        f"preprocessing `{data.preprocess}`{findings}"
    )
