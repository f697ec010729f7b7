"""The verdicts as JUnit XML, which every CI server shows: a suite per device, a case per candidate.

A candidate that fails its budgets is a `failure`; one that could not be made, or whose device failed, an `error`;
one on which the evidence does not decide is `skipped`. The exit code of `deploy` says whether the whole run passed.
"""

import re
from xml.etree import ElementTree

from pipeline.records import CandidateReport, Report
from pipeline.reporting.comparison import Row, Table, tables
from pipeline.reporting.headline import headline
from pipeline.reporting.printable import printable

# Everything that XML 1.0 has no way to write, not even as a character reference.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENT = {"fail": "failure", "refused": "error", "inconclusive": "skipped"}


def junit(report: Report) -> bytes:
    root = ElementTree.Element("testsuites", name=legal(report.name))
    counts = [0, 0, 0, 0]
    for table in tables(report):
        suite = _suite(report, table)
        root.append(suite)
        counts = [total + int(suite.get(key, "0")) for total, key in zip(counts, _COUNTS, strict=True)]
    for key, total in zip(_COUNTS, counts, strict=True):
        root.set(key, str(total))
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


_COUNTS = ("tests", "failures", "errors", "skipped")


def legal(text: str) -> str:
    """The text without what XML cannot hold: control characters, lone surrogates."""
    return _ILLEGAL.sub("", text)


def _suite(report: Report, table: Table) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=legal(table.target or "host"), timestamp=legal(report.created))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (
        ("status", report.status),
        ("verdict", headline(report)),
        ("release", report.release),
        ("emulated", table.emulated),
    ):
        if value:
            ElementTree.SubElement(properties, "property", name=name, value=legal(value))
    for candidate, row in zip(report.candidates, table.rows, strict=True):
        suite.append(_case(report, table, candidate, row))
    suite.set("tests", str(len(table.rows)))
    for key, element in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(len(suite.findall(f"testcase/{element}"))))
    return suite


def _case(report: Report, table: Table, candidate: CandidateReport, row: Row) -> ElementTree.Element:
    case = ElementTree.Element("testcase", name=legal(row.recipe), classname=legal(f"{report.name}.{table.target}"))
    if candidate.verdict == "refused":
        _outcome(case, "error", candidate.reason, candidate.last_output)
    elif table.failure:
        _outcome(case, "error", f"{table.failure.code}: {table.failure.message}", (table.failure.hint,))
    elif row.verdict != "pass":
        _outcome(case, _ELEMENT[row.verdict], row.reason, candidate.findings)
    numbers = (
        f"{column.title}: {' '.join(filter(None, (cell.text, cell.interval, cell.change)))}"
        for column, cell in zip(table.columns, row.cells, strict=True)
    )
    ElementTree.SubElement(case, "system-out").text = legal("\n".join(numbers))
    return case


def _outcome(case: ElementTree.Element, element: str, message: str, lines: tuple[str, ...]) -> None:
    outcome = ElementTree.SubElement(case, element, message=legal(message))
    outcome.text = legal("\n".join(map(printable, lines)))
