"""report.html: one file that opens offline, asks nothing of the network, and reads without JavaScript."""

import re
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from pipeline import quantities
from pipeline.records import CandidateReport, Report
from pipeline.reporting import headline, pictures, plots
from pipeline.reporting.calibration import described
from pipeline.reporting.comparison import tables
from pipeline.reporting.printable import printable
from pipeline.reporting.promises import promises
from pipeline.reporting.searching import searches
from targets.records import Absent, Facts, Failed


def html(report: Report, folder: Path) -> str:
    """The page. `folder` is where the records' picture paths start."""
    found = plots.plots(report)
    return _template().render(
        report=report,
        headline=_unbroken(headline.headline(report), [c.recipe for c in report.candidates]),
        why=headline.why(report),
        by_target=headline.by_target(report),
        status_word=headline.STATUS_WORDS[report.status],
        status_sign=headline.STATUS_SIGNS[report.status],
        signs=headline.VERDICT_SIGNS,
        tables=tables(report),
        device=lambda name: _device(report, name),
        promises=promises(report),
        searches=searches(report),
        coverage=[_coverage(c) for c in report.candidates if c.ops_total],
        calibrated=described,
        samples=pictures.samples(report, folder),
        samples_omitted=pictures.omitted(report),
        plots={group: [p for p in found if p.group == group] for group in ("tradeoff", "search", "distribution")},
        # Both are made for a <script> element: plotly's own bundle, and JSON without "<".
        plotly_js=Markup(plots.plotly_js()) if found else "",
        raw=Markup,
    )


def _unbroken(text: str, names: list[str]) -> Markup:
    """The text with each name kept on one line: a browser would break `litert-int8` at its hyphen."""
    longest_first = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    # re.split gives the names at the odd places.
    parts = re.split(f"({longest_first})", text) if longest_first else [text]
    span = Markup('<span class="name">{}</span>')
    return Markup("").join(span.format(part) if i % 2 else part for i, part in enumerate(parts))


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(printable=printable, size=quantities.size, ms=_ms, known=_known)
    return environment.get_template("report.html.j2")


def _ms(value: float | Absent) -> str:
    return f"— ({value.reason})" if isinstance(value, Absent) else quantities.milliseconds(value)


def _known(value: object) -> str:
    return f"— ({value.reason})" if isinstance(value, Absent) else str(value)


def _device(report: Report, name: str) -> list[tuple[str, str]]:
    """What the probe found, as label and text."""
    facts = report.facts.get(name)
    if facts is None or isinstance(facts, Failed):
        return []
    return [
        ("Processor", f"{facts.cpu_model}, {facts.cpu_count} × {facts.arch}"),
        ("Features", " ".join(facts.cpu_features) or "none that matters here"),
        ("System", f"{facts.os}, kernel {facts.kernel}, {facts.libc}, Python {facts.python}"),
        ("Runtimes", ", ".join(f"{name} {version}" for name, version in facts.runtimes.items()) or "none"),
        ("Memory", _memory(facts)),
        ("Governor", _known(facts.governor)),
        ("Temperature", _known(facts.temperature_c) + ("" if isinstance(facts.temperature_c, Absent) else " °C")),
        ("Power meters", ", ".join(facts.meters) or "none"),
    ]


def _memory(facts: Facts) -> str:
    if isinstance(facts.total_memory_bytes, Absent):
        return _known(facts.total_memory_bytes)
    return f"{quantities.size(facts.total_memory_bytes)}, free disk {quantities.size(facts.free_disk_bytes)}"


def _coverage(candidate: CandidateReport) -> dict[str, object]:
    quantized = sum(candidate.ops_quantized.values())
    return {
        "recipe": candidate.recipe,
        "quantized": quantized,
        "total": candidate.ops_total,
        "percent": round(100 * quantized / candidate.ops_total),
        "ops": ", ".join(f"{op} ×{count}" for op, count in candidate.ops_quantized.items()),
        "left": candidate.ops_left_float,
    }
