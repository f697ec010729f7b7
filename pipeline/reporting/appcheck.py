"""What `deploy check` found: in a terminal, as JSON, as Markdown for a pull request, and as JUnit XML."""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from pipeline import codec
from pipeline.appcheck.app import Manifest, Severity
from pipeline.appcheck.check import Checked, CheckStatus
from pipeline.appcheck.modelcheck import ModelCheck
from pipeline.appcheck.rules import SAYS
from pipeline.appcheck.rules.finding import models as counted
from pipeline.fit.records import RUNTIME_OF, RUNTIME_TITLES
from pipeline.quantities import size
from pipeline.reporting.junit import legal
from pipeline.reporting.markdown import escape
from pipeline.reporting.printable import printable

_SIGNS: Mapping[Severity, str] = {"blocking": "✗", "unjudged": "?", "warning": "!"}
_SEVERITIES: Mapping[str, Severity] = {"fail": "blocking", "unjudged": "unjudged"}
_STYLES: Mapping[Severity, str] = {"blocking": "bold red", "unjudged": "yellow", "warning": "yellow"}
_STATUS: Mapping[CheckStatus, tuple[str, str, str]] = {
    "pass": ("✓", "nothing in it stops the release", "bold green"),
    "fail": ("✗", "not to be released", "bold red"),
    "inconclusive": ("?", "not everything could be judged", "bold yellow"),
}


def headline(checked: Checked) -> str:
    """The verdict in one line."""
    counts = [
        f"{count} {word}{'s' if severity == 'warning' and count > 1 else ''}"
        for severity, word in (("blocking", "blocking"), ("unjudged", "not judged"), ("warning", "warning"))
        if (count := sum(finding.severity == severity for finding in checked.findings))
    ]
    return f"{_STATUS[checked.status][1]}: {', '.join(counts) or 'no findings'}"


def summary(checked: Checked) -> str:
    """What the app is, in one line."""
    app = checked.app
    abis = sorted({library.abi for library in app.libraries})
    total = sum(model.entry.size_bytes for model in app.models)
    parts = [f"{size(app.size_bytes)} {app.kind.upper()}", f"{counted(len(app.models))} ({size(total)})"]
    parts.append(f"{len(app.libraries)} libraries" + (f" for {', '.join(abis)}" if abis else ""))
    if isinstance(app.manifest, Manifest):
        parts.append(f"minSdk {app.manifest.min_sdk or '?'}, targetSdk {app.manifest.target_sdk or '?'}")
    return ", ".join(parts)


class CheckView:
    """A rich renderable: `console.print(CheckView(checked))`."""

    def __init__(self, checked: Checked) -> None:
        self._checked = checked

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        checked = self._checked
        yield Text.assemble((printable(checked.app.name), "bold"), f"  {summary(checked)}")
        if checked.app.models:
            yield _models(checked)
        if checked.checks:
            yield _checks(checked)
        for finding in checked.findings:
            sign = (f"{_SIGNS[finding.severity]} {finding.rule}", _STYLES[finding.severity])
            yield Text.assemble(sign, f"  {printable(finding.file) or printable(checked.app.name)}")
            yield Text(f"    {printable(finding.detail)}")
            yield Text.assemble(("    → ", "cyan"), printable(finding.remedy))
        for note in checked.notes:
            yield Text(f"— {printable(note)}", style="dim")
        mark, _, style = _STATUS[checked.status]
        yield Text.assemble((f"{mark} ", style), (headline(checked), "bold"))


def _models(checked: Checked) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("Model", "Size", "SHA-256", "Runtime", "In the archive"):
        table.add_column(column, overflow="fold")
    for model in checked.app.models:
        runtime = RUNTIME_OF[model.format]
        versions = sorted({li.version for li in checked.app.libraries if li.runtime == runtime and li.version})
        table.add_row(
            printable(model.entry.name),
            size(model.entry.size_bytes),
            model.sha256[:12],
            f"{RUNTIME_TITLES[runtime]} {', '.join(versions)}".strip(),
            "stored" if model.entry.stored else f"compressed to {size(model.entry.compressed_bytes)}",
        )
    return table


_COLUMNS = ("Model", "Asked", "Where", "Found", "Limit")


def _row(check: ModelCheck) -> tuple[str, ...]:
    return (check.file, check.what, check.where, check.found or "—", check.limit or "—")


def _checks(checked: Checked) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("", *_COLUMNS):
        table.add_column(column, overflow="fold")
    for check in checked.checks:
        severity = _SEVERITIES.get(check.status)
        sign = Text(_SIGNS[severity], _STYLES[severity]) if severity else Text("✓", "green")
        table.add_row(sign, *map(printable, _row(check)))
    return table


def check_json(checked: Checked) -> str:
    """Canonical JSON: the verdict, the findings, the models and the libraries; not every file of the app."""
    app = codec.plain(checked.app)
    document: dict[str, Any] = {
        "version": 1,
        "status": checked.status,
        "app": {key: app[key] for key in ("name", "kind", "sha256", "size_bytes", "models", "libraries", "manifests")},
        "checks": [codec.plain(check) for check in checked.checks],
        "findings": [codec.plain(finding) for finding in checked.findings],
        "notes": list(checked.notes),
    }
    return codec.canonical(document).decode()


def check_markdown(checked: Checked) -> str:
    """For a pull request."""
    sign = _STATUS[checked.status][0]
    parts = [f"## {sign} {escape(checked.app.name)}", f"**{escape(headline(checked))}**", escape(summary(checked))]
    if checked.checks:
        rows = [f"| | {' | '.join(_COLUMNS)} |", f"|{'---|' * (len(_COLUMNS) + 1)}"]
        for check in checked.checks:
            severity = _SEVERITIES.get(check.status)
            rows.append(f"| {_SIGNS[severity] if severity else '✓'} | {' | '.join(map(escape, _row(check)))} |")
        parts.append("\n".join(rows))
    if checked.findings:
        rows = ["| | Rule | File | What | Remedy |", "|---|---|---|---|---|"]
        for finding in checked.findings:
            cells = (finding.rule, finding.file, finding.detail, finding.remedy)
            rows.append(f"| {_SIGNS[finding.severity]} | {' | '.join(map(escape, cells))} |")
        parts.append("\n".join(rows))
    parts += [f"— {escape(note)}" for note in checked.notes]
    return "\n\n".join([*parts, f"`{checked.app.sha256}`"]) + "\n"


def check_junit(checked: Checked) -> bytes:
    """One case per rule and per check of a model: a `failure` when it blocks, `skipped` when it could not judge.

    Warnings are told only.
    """
    counts = {"tests": len(SAYS) + len(checked.checks), "failures": 0, "errors": 0, "skipped": 0}
    suite = ElementTree.Element("testsuite", name=legal(checked.app.name))
    for rule, says in SAYS.items():
        case = ElementTree.SubElement(suite, "testcase", name=rule, classname="deploy.check")
        found = [finding for finding in checked.findings if finding.rule == rule]
        worst = next((s for s in _SIGNS if any(finding.severity == s for finding in found)), None)
        lines = legal("\n".join(f"{f.file or checked.app.name}: {f.detail}\n  -> {f.remedy}" for f in found))
        if worst in ("blocking", "unjudged"):
            counts["failures" if worst == "blocking" else "skipped"] += 1
            element = "failure" if worst == "blocking" else "skipped"
            ElementTree.SubElement(case, element, message=legal(says)).text = lines
        elif found:
            ElementTree.SubElement(case, "system-out").text = lines
    for check in checked.checks:
        name = legal(f"{check.what} of {check.file} on {check.where}")
        case = ElementTree.SubElement(suite, "testcase", name=name, classname="deploy.check.models")
        if check.status != "pass":
            counts["failures" if check.status == "fail" else "skipped"] += 1
            element = "failure" if check.status == "fail" else "skipped"
            text = legal(f"{check.detail}\n  -> {check.remedy}")
            ElementTree.SubElement(case, element, message=legal(check.detail)).text = text
        else:
            said = f"{check.found}, limit {check.limit or 'none'}"
            ElementTree.SubElement(case, "system-out").text = legal(said)
    root = ElementTree.Element("testsuites", name="deploy check")
    for key, count in counts.items():
        suite.set(key, str(count))
        root.set(key, str(count))
    root.append(suite)
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"
