"""The comparison table of one device, as text cells: what HTML, Markdown and the console all show."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pipeline import quantities
from pipeline.derived import Energy
from pipeline.records import CandidateReport, Report, Summary, TargetResult, VerdictKind
from targets.records import Absent, Failed

Tone = Literal["", "better", "worse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    key: str  # file, memory, latency, p90, fps, energy, net, metric:<name>, sqnr
    title: str
    wall_clock: bool = False  # depends on the device's clock, so an emulated device must say so


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    text: str
    change: str = ""  # against the baseline
    interval: str = ""
    tone: Tone = ""
    note: str = ""  # why there is no number


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    recipe: str
    format: str
    verdict: VerdictKind
    reason: str
    chosen: bool
    baseline: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    target: str  # empty: no device answered, only what the host knows
    emulated: str
    failure: Failed | None
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]  # reasons of absent numbers, each once (a cell's `note` is one of them); what was lowered
    metered: str = ""  # what the energies are of; empty: there are none


_MISSING = Cell(text="—")
_DEVICE = (
    Column(key="memory", title="Peak memory"),
    Column(key="latency", title="Latency, median", wall_clock=True),
    Column(key="p90", title="p90", wall_clock=True),
    Column(key="fps", title="FPS", wall_clock=True),
    Column(key="energy", title="Energy per inference", wall_clock=True),
)
_NET = Column(key="net", title="Net energy", wall_clock=True)  # only where something was measured


def tables(report: Report) -> tuple[Table, ...]:
    """One table per device; when no device answered, a last one with the numbers of the host."""
    result = [_table(report, name) for name in report.facts]
    if all(table.failure for table in result):
        result.append(_table(report, ""))
    return tuple(result)


def quality_of(report: Report) -> str:
    """Column key of the quality that speaks for a candidate: the first task metric, else fidelity."""
    names = _metric_names(report)
    return f"metric:{names[0]}" if names else "sqnr"


def baseline_of(report: Report) -> CandidateReport | None:
    return next((c for c in report.candidates if c.recipe == report.baseline), None)


def sqnr(candidate: CandidateReport) -> str:
    """Signal to quantization noise. ±200 dB are the caps that stand for "no difference" and "not even finite"."""
    value = candidate.fidelity.get("sqnr_db")
    if value is None:
        return "—"
    if abs(value) >= 200:
        return "identical" if value > 0 else "not finite"
    return f"{value:.1f} dB".replace("-", quantities.MINUS)


def _metric_names(report: Report) -> list[str]:
    return list(dict.fromkeys(name for candidate in report.candidates for name in candidate.metrics))


def _table(report: Report, target: str) -> Table:
    facts = report.facts.get(target)
    failure = facts if isinstance(facts, Failed) else None
    metered = _metered(report, target)
    columns = (
        Column(key="file", title="File"),
        *(_DEVICE if target and failure is None else ()),
        *((_NET,) if metered else ()),
        *(Column(key=f"metric:{name}", title=_metric_title(report, name)) for name in _metric_names(report)),
        Column(key="sqnr", title="SQNR vs float"),
    )
    rows = tuple(_row(report, candidate, target, columns) for candidate in report.candidates)
    notes = dict.fromkeys(cell.note for row in rows for cell in row.cells if cell.note)
    emulated = "" if facts is None or isinstance(facts, Failed) else facts.emulated
    return Table(
        target=target,
        emulated=emulated,
        failure=failure,
        columns=columns,
        rows=rows,
        notes=(*notes, *_lowered(report, target)),
        metered=metered,
    )


def _metered(report: Report, target: str) -> str:
    """How the energies of a device came about; empty when there are none."""
    results = [c.targets[target] for c in report.candidates if target in c.targets]
    found = [result.energy_details for result in results if result.energy_details]
    if not found:
        return ""
    first, missing = found[0], sum(each.missing_samples for each in found)
    doubts = max((each.doubts for each in found), key=len)
    return (
        f"energy by {first.meter}: {first.scope}; median of {first.windows} windows of "
        f"{quantities.number(first.window_s)} s or more, "
        f"{missing} samples missing; idle at {quantities.number(first.idle_w)} W"
        + "".join(f"; {doubt}" for doubt in doubts)
    )


def _lowered(report: Report, target: str) -> Iterator[str]:
    """Candidates that run there as another file than the one whose size the table has."""
    for candidate in report.candidates:
        result = candidate.targets.get(target)
        if result and result.path:
            yield f"{candidate.recipe} runs there as {result.path}: {result.fit}"


def _metric_title(report: Report, name: str) -> str:
    better = next(c.metrics[name].better for c in report.candidates if name in c.metrics)
    return f"{name} {'↑' if better == 'higher' else '↓'}"


def _row(report: Report, candidate: CandidateReport, target: str, columns: tuple[Column, ...]) -> Row:
    result = candidate.targets.get(target)
    base = baseline_of(report)
    chosen = report.chosen_by_target.get(target, report.chosen) if target else report.chosen
    return Row(
        recipe=candidate.recipe,
        format=candidate.format,
        verdict=result.verdict if result else candidate.verdict,
        reason=result.reason if result else candidate.reason,
        chosen=candidate.recipe == chosen,
        baseline=candidate.recipe == report.baseline,
        cells=tuple(_cell(column.key, candidate, base, target) for column in columns),
    )


def _cell(key: str, candidate: CandidateReport, base: CandidateReport | None, target: str) -> Cell:
    if base is candidate:
        base = None
    if key == "file":
        return _file(candidate, base)
    if key == "sqnr":
        return Cell(text=sqnr(candidate))
    if key.startswith("metric:"):
        return _metric(candidate, key.removeprefix("metric:"))
    result = candidate.targets.get(target)
    return _MISSING if result is None else _measured(key, result, base.targets.get(target) if base else None)


def _file(candidate: CandidateReport, base: CandidateReport | None) -> Cell:
    if not candidate.size_bytes:
        return _MISSING
    return _compared(quantities.size(candidate.size_bytes), candidate.size_bytes, base.size_bytes if base else None)


def _metric(candidate: CandidateReport, name: str) -> Cell:
    metric = candidate.metrics.get(name)
    if metric is None:
        return _MISSING
    text = quantities.metric(metric.value, metric.unit)
    gain = metric.value - metric.reference
    places = 2 if abs(metric.reference) >= 10 else 3
    if round(gain, places) == 0:
        # What the printed digits do not show is neither won nor lost.
        return Cell(text=text, change="±0" if gain else "")
    share = f" ({quantities.fine_percent(gain / abs(metric.reference))})" if metric.reference else ""
    tone: Tone = "worse" if metric.drop > 0 else "better"
    return Cell(text=text, change=f"{quantities.signed(gain, places)}{share}", tone=tone)


def _measured(key: str, result: TargetResult, base: TargetResult | None) -> Cell:
    if key in ("latency", "p90"):
        if isinstance(result.warm_ms, Absent):
            return Cell(text="—", note=result.warm_ms.reason)
        warm, other = result.warm_ms, base.warm_ms if base else None
        if key == "p90":
            return Cell(text=quantities.milliseconds(warm.p90))
        against = other.median if isinstance(other, Summary) else None
        interval = quantities.interval(*warm.ci95, like=warm.median)
        return _compared(quantities.milliseconds(warm.median), warm.median, against, interval=interval)
    if key == "memory":
        return _plain(result.peak_rss_bytes, base.peak_rss_bytes if base else None, quantities.size)
    if key == "energy":
        return _energy(result.energy, base.energy if base else None, result.energy_details, "gross_error_j")
    if key == "net":
        return _net(result, base)
    return _plain(result.fps, base.fps if base else None, quantities.number, more_is_better=True)


def _net(result: TargetResult, base: TargetResult | None) -> Cell:
    if result.energy_details is None:
        return Cell(text="—")  # the column of gross energy says why
    other = base.energy_details.net_j if base and base.energy_details else None
    return _energy(result.energy_details.net_j, other, result.energy_details, "net_error_j")


def _energy(value: float | Absent, base: float | Absent | None, energy: Energy | None, error: str) -> Cell:
    cell = _plain(value, base, quantities.joules)
    if energy is None or isinstance(value, Absent):
        return cell
    return replace(cell, interval=quantities.margin(getattr(energy, error), value))


def _plain(
    value: float | Absent, base: float | Absent | None, text: Callable[[float], str], *, more_is_better: bool = False
) -> Cell:
    if isinstance(value, Absent):
        return Cell(text="—", note=value.reason)
    return _compared(text(value), value, None if isinstance(base, Absent) else base, more_is_better=more_is_better)


def _compared(text: str, value: float, base: float | None, *, interval: str = "", more_is_better: bool = False) -> Cell:
    if not base:
        return Cell(text=text, interval=interval)
    tone: Tone = "better" if (value > base) == more_is_better else "worse"
    if quantities.unchanged(value, base):
        tone = ""
    return Cell(text=text, change=quantities.change(value, base), interval=interval, tone=tone)
