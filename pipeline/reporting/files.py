"""The four files of a report, written so that a reader never meets half of one."""

import os
import tempfile
from pathlib import Path

from pipeline.errors import HostDiskFull
from pipeline.records import Report
from pipeline.reporting.html import html
from pipeline.reporting.junit import junit
from pipeline.reporting.markdown import markdown
from pipeline.reporting.schema import report_json

NAMES = ("report.json", "report.md", "junit.xml", "report.html")


def write_all(report: Report, folder: Path, pictures: Path) -> None:
    """Write report.html, report.md, report.json and junit.xml.

    `pictures` is the folder that the paths in the records' pictures start from. Raises HostDiskFull.
    """
    contents = (
        report_json(report),
        markdown(report).encode(errors="replace"),
        junit(report),
        html(report, pictures).encode(errors="replace"),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in zip(NAMES, contents, strict=True):
            _write(folder / name, content)
    except OSError as error:
        raise HostDiskFull(f"cannot write the report: {error}", hint=f"make room or rights in {folder}") from error


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes files for one user's eyes; a report is for everyone who may read the folder.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
