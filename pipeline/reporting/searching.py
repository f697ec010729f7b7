"""How an `auto` recipe came to its mix, as tables of text: blocks by what they lose, and the mixes that were tried."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline import quantities
from pipeline.records import BlockError, Report, SearchReport, Trial
from pipeline.search.confirming import Confirmed, Loss

Role = Literal["chosen", "baseline", "pass", "fail"]
_VERDICTS = {"meets": "✓ meets the target", "unsure": "? not sure to", "misses": "✗ misses it", "refused": "⊘ refused"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table: the first column names the row, the others are numbers or words."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    chosen: int | None = None  # number of the row that was taken


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchView:
    recipe: str
    findings: tuple[str, ...]
    blocks: Grid
    best: Grid  # the Pareto set, all int8 and all float
    every: Grid


def searches(report: Report) -> tuple[SearchView, ...]:
    """One for each `auto` recipe whose search came to an end."""
    return tuple(_view(search) for search in report.searches)


def blocks_grid(blocks: Sequence[BlockError], total: int, int8_sqnr_db: float) -> Grid:
    """The ranking; also what `deploy sensitivity` prints."""
    more = f"; the {total - len(blocks)} others lose less" if total > len(blocks) else ""
    return Grid(
        title=f"What int8 loses, by block: {_decibel(int8_sqnr_db)} SQNR with all {total} of them{more}",
        columns=("Block", "Ops", "Share of the loss", "SQNR, itself", "SQNR, output", "Compute", "Too coarse", "Fix"),
        rows=tuple(_block(place + 1, error) for place, error in enumerate(blocks)),
    )


def confirmed_grid(found: Confirmed) -> Grid:
    """The worst blocks held against the task metrics; also what `deploy sensitivity` prints."""
    rows = [("all in int8", _decibel(found.int8_sqnr_db), *map(_loss, found.int8))]
    for one in found.blocks:
        what = f"{short(one.block)} in {one.precision}"
        told = (one.refused,) if one.refused else (_decibel(one.sqnr_db), *map(_loss, one.losses))
        rows.append((what, *told, *("" for _ in range(len(rows[0]) - 1 - len(told)))))
    metrics = tuple(f"{loss.metric} lost" for loss in found.int8)
    return Grid(
        title=f"On the task, over {found.samples} test samples (95 % intervals), with one block mended at a time",
        columns=("Mix", "SQNR, output", *metrics),
        rows=tuple(rows),
    )


def _loss(loss: Loss) -> str:
    value, low, high = (quantities.signed(number) for number in (loss.value, loss.low, loss.high))
    return f"{value} ({low} … {high})" if loss.low != loss.high else value


def role(search: SearchReport, trial: Trial) -> Role:
    """How a plot shows it."""
    if trial.name == search.chosen:
        return "chosen"
    if trial.verdict != "meets":
        return "fail"
    return "baseline" if trial.name == "float32" else "pass"


def _view(search: SearchReport) -> SearchView:
    shown = {*search.pareto, search.chosen, "int8", "float32"}
    best = [trial for trial in search.trials if trial.name in shown and trial.verdict != "refused"]
    best.sort(key=lambda trial: (trial.latency_ms or float("inf"), trial.size_bytes))
    return SearchView(
        recipe=search.recipe,
        findings=search.findings,
        blocks=blocks_grid(search.sensitivity, search.blocks_total, search.int8_sqnr_db),
        best=_trials(f"The best mixes: {search.cost} against loss", best, search),
        every=_trials(f"All {len(search.trials)} mixes, in the order they were tried", search.trials, search),
    )


def _block(place: int, error: BlockError) -> tuple[str, ...]:
    if error.refused:
        return (f"#{place} {short(error.block)}", "+".join(error.types), "—", "—", "—", _share(error.compute_share),
                error.refused, "float32")  # fmt: skip
    fix = f"{error.fix} ({_decibel(error.fix_sqnr_db)})" if error.fix and error.fix_sqnr_db is not None else "—"
    return (
        f"#{place} {short(error.block)}",
        "+".join(error.types),
        _share(error.loss_share),
        _decibel(error.op_sqnr_db),
        _decibel(error.output_sqnr_db),
        _share(error.compute_share),
        error.cause or "—",
        fix,
    )


def _trials(title: str, trials: Sequence[Trial], search: SearchReport) -> Grid:
    metrics = [drop.metric for drop in search.trials[0].drops]
    chosen = next((place for place, trial in enumerate(trials) if trial.name == search.chosen), None)
    return Grid(
        title=title,
        columns=(
            "Mix",
            "Target",
            *(f"Loss of {name}" for name in metrics),
            "Latency",
            "File",
            "Compute in int8",
            "SQNR",
        ),
        rows=tuple(_trial(trial, metrics, trial.name in search.pareto) for trial in trials),
        chosen=chosen,
    )


def _trial(trial: Trial, metrics: Sequence[str], best: bool) -> tuple[str, ...]:
    losses = {drop.metric: drop for drop in trial.drops}
    cells = [f"{trial.name}{' (Pareto)' if best else ''}", _VERDICTS[trial.verdict]]
    for name in metrics:
        drop = losses.get(name)
        cells.append(f"{drop.value:.3g} [{drop.low:.3g}, {drop.high:.3g}]" if drop else "—")
    if trial.verdict == "refused":
        return (*cells, "—", "—", "—", trial.reason)
    latency = quantities.milliseconds(trial.latency_ms) if trial.latency_ms is not None else "—"
    return (*cells, latency, quantities.size(trial.size_bytes), _share(trial.int8_share), _decibel(trial.sqnr_db))


def short(name: str) -> str:
    """The end of a long op name: its beginning is what all of them share."""
    last = name.split(";")[-1]
    return last if len(last) <= _LONGEST else "…" + last[-_LONGEST:]


_LONGEST = 40  # characters that a table has room for


def _decibel(value: float) -> str:
    return f"{value:.1f} dB" if abs(value) < 200 else "exact"


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.095 or value == 0 else f"{value:.1%}"
