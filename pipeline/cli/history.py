"""`deploy history` and `deploy diff`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import config_option, json_option, state_folder, state_option
from pipeline.cli.release import name_option
from pipeline.cli.terminal import rendered

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipeline.release.diff import Change
    from pipeline.release.records import RunEntry
    from pipeline.release.series import Point

_SIGNS = {"pass": "[green]✓[/]", "fail": "[red]✗[/]"}
_SHORT = {"p50": "latency_p50", "median": "latency_p50", "p90": "latency_p90", "memory": "peak_memory"}
_SHOWN = 20  # runs, without --all: what fits a screen


@click.command()
@click.option("--metric", metavar="NAME", help="One number over the runs: p90, p50, size, energy, a quality metric …")
@click.option("--target", metavar="NAME", help="The device that the number is of.")
@click.option("--recipe", metavar="NAME", help="The number of this recipe, and not of what each run chose.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the number over time as a page with a plot."
)
@click.option("--all", "everything", is_flag=True, help=f"All runs, not the last {_SHOWN}.")
@name_option
@config_option
@state_option
@json_option
def history(
    metric: str | None,
    target: str | None,
    recipe: str | None,
    html: Path | None,
    everything: bool,
    name: str | None,
    config: Path,
    state: Path | None,
    as_json: bool,
) -> None:
    """What was run and released, oldest first; with --metric one number over the runs and what was measured."""
    from pipeline.errors import UsageError
    from pipeline.release.find import the_name
    from pipeline.release.history import History, names

    if metric is None and (target or recipe or html):
        raise UsageError("--target, --recipe and --html are of one number", hint="say which: --metric p90")
    metric = _SHORT.get(metric or "", metric)
    folder = state_folder(config, state)
    measured_only = metric is not None and name is None and not names(folder) and (folder / "sessions").is_dir()
    runs = [] if measured_only else History(folder, the_name(folder, name)).runs()
    shown = runs if everything else runs[-_SHOWN:]
    if metric is not None:
        points = _points(folder, shown, metric, target, recipe)
        _show_series(points if everything else points[-_SHOWN:], metric, as_json)
        if html is not None:
            _write_page(html, points, metric, target)
    elif as_json:
        from pipeline import codec

        click.echo(json.dumps([codec.plain(run) for run in shown]))
    else:
        before = [f"[dim]… and {len(runs) - len(shown)} before; --all shows them[/]"] if len(shown) < len(runs) else []
        click.echo(rendered(_table(shown), *before), nl=False)


def _table(runs: "Sequence[RunEntry]") -> "RenderableType":
    from rich.table import Table

    from pipeline.quantities import milliseconds, size

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("Date (UTC)", "Verdict", "Release"):
        table.add_column(title, no_wrap=True)
    table.add_column("Chosen", min_width=12, overflow="fold")
    table.add_column("Size", justify="right", no_wrap=True)
    table.add_column("p90 latency")
    for run in runs:
        chosen = {key: recipe for key, recipe in run.chosen.items() if recipe}
        latencies = []
        for target, numbers in run.targets.items():
            of = numbers.get(chosen.get(run.classes.get(target, "default"), ""))
            if of and of.latency_p90_ms is not None:
                latencies.append(f"{target} {milliseconds(of.latency_p90_ms)}".replace(" ", "\N{NO-BREAK SPACE}"))
        sizes = [size(run.recipes[recipe].size_bytes) for recipe in dict.fromkeys(chosen.values())]
        table.add_row(
            run.date[:16].replace("T", " "),
            f"{_SIGNS.get(run.status, '[yellow]?[/]')} {run.status}",
            (f"{run.sequence}  {run.release[:8]}" if run.new else f"{run.sequence} again") if run.release else "–",
            ", ".join(r if key == "default" else f"{key}: {r}" for key, r in chosen.items()) or f"none: {run.reason}",
            ", ".join(sizes),
            ", ".join(latencies),
        )
    return table


def _points(
    state: Path, runs: "Sequence[RunEntry]", metric: str, target: str | None, recipe: str | None
) -> "list[Point]":
    """Of the runs, and of the sessions of measuring on the same device."""
    from pipeline.errors import UsageError
    from pipeline.measuring.log import kept
    from pipeline.measuring.series import METRICS, merged
    from pipeline.measuring.series import points as measured
    from pipeline.release.series import series

    sessions = list(kept(state)) if metric in METRICS else []
    ran = {name for run in runs for name in run.targets}
    places = list(dict.fromkeys([*sorted(ran), *(session.target for session in sessions)]))
    if metric in METRICS and target is None and len(places) > 1:
        raise UsageError(f"--metric {metric}: is of one device", hint=f"say which: --target {'|'.join(places)}")
    place = target or (places[0] if places else "")
    of_sessions = measured(sessions, metric, place, recipe)
    if of_sessions and place not in ran:
        return of_sessions
    return merged(series(runs, metric, target or (place if place in ran else None), recipe), of_sessions)


def _show_series(points: "Sequence[Point]", metric: str, as_json: bool) -> None:
    from pipeline.release.series import line

    if as_json:
        rows = [
            {
                "date": point.date,
                "release": point.sequence or None,
                "recipe": point.recipe,
                "value": point.value,
                "interval": point.interval,
                "doubts": point.doubts,
                "source": point.source,
            }
            for point in points
        ]
        click.echo(json.dumps(rows))
        return
    for point in points:
        text = "not measured" if point.value is None else _number(metric, point.value)
        at = f"release {point.sequence}" if point.sequence else "no release"
        if point.source == "session":
            at = ", ".join([*([at] if point.sequence else []), "measured", *(f"! {doubt}" for doubt in point.doubts)])
        click.echo(f"{point.date[:16].replace('T', ' ')}  {text:>12}  {point.recipe or 'nothing chosen'}, {at}")
    for recipe in dict.fromkeys(point.recipe for point in points if point.source == "session"):
        own = [point.value for point in points if (point.recipe, point.source) == (recipe, "session")]
        click.echo(f"{metric}  {line(own)}  {recipe}, measured")
    if runs := [point.value for point in points if point.source == "run"]:
        click.echo(f"{metric}  {line(runs)}")


def _write_page(path: Path, points: "Sequence[Point]", metric: str, target: str | None) -> None:
    from pipeline.release.series import DEVICE_METRICS
    from pipeline.reporting.history_page import page

    field = DEVICE_METRICS.get(metric, metric)
    unit = {"ms": "ms", "bytes": "bytes", "j": "J"}.get(field.rpartition("_")[2], metric)
    path.write_text(page(points, f"{metric}, {target}" if target else metric, unit), encoding="utf-8")
    click.echo(f"page: {path}", err=True)


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@name_option
@config_option
@state_option
@json_option
def diff(before: str, after: str, name: str | None, config: Path, state: Path | None, as_json: bool) -> None:
    """What changed from release A to release B: data, tools, recipe, settings, numbers.

    A and B are bundle files, numbers, or beginnings of ids.
    """
    from dataclasses import asdict

    from pipeline.release.diff import difference
    from pipeline.release.find import find_release

    folder = state_folder(config, state)
    old, new = find_release(before, folder, name), find_release(after, folder, name)
    found = difference(old.record, new.record)
    if as_json:
        ends = {
            key: {"id": end.id, "name": end.record.name, "sequence": end.record.sequence}
            for key, end in (("before", old), ("after", new))
        }
        click.echo(json.dumps(ends | asdict(found)))
        return
    lines = [f"{end.record.name} {end.record.sequence}  [dim]{end.id[:16]} {end.date}[/]" for end in (old, new)]
    if found.same_content:
        lines.append("The same content: only what the devices showed may differ.")
    click.echo(rendered(*lines, _changes(found.changes) if found.changes else "No difference."), nl=False)


def _changes(changes: "Sequence[Change]") -> "RenderableType":
    """What changed beside from what to what, under the title of its section: two columns fit into 80."""
    from rich.table import Table
    from rich.text import Text

    from pipeline.reporting.printable import printable

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(max_width=36, overflow="fold")
    table.add_column(overflow="fold")
    section = ""
    for change in changes:
        if change.section != section:
            section = change.section
            table.add_row(Text(section, "bold"), "")
        before, after = (printable(_shown(change.key, value)) for value in (change.before, change.after))
        what = change.key.removesuffix("_ms").removesuffix("_bytes").removesuffix("_j")
        by = _by_how_much(change)
        told = Text.assemble((before, "dim"), " → ", after, f"  ({by})" if by else "")
        table.add_row(Text(f"  {printable(what)}"), told)
    return table


def _by_how_much(change: "Change") -> str:
    from pipeline.quantities import change as relative
    from pipeline.quantities import signed

    ends = (change.before, change.after)
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        return ""
    if change.section == "quality":
        return signed(change.after - change.before)  # rounded, both ends may look the same
    return relative(change.after, change.before) if change.section == "numbers" and change.before else ""


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float | int) and not isinstance(value, bool):
        return _number(key, value)
    if isinstance(value, str):
        digest = len(value) == 64 and all(letter in "0123456789abcdef" for letter in value)
        return f"{value[:12]}…" if digest else value or "none"
    return json.dumps(value, ensure_ascii=False)


def _number(key: str, value: float) -> str:
    from pipeline.quantities import joules, milliseconds, size

    by_ending = {"_ms": milliseconds, "_bytes": size, "_j": joules}
    by_name = {"size": size, "peak_memory": size, "energy": joules}
    by_name |= dict.fromkeys(("latency_p50", "latency_p90", "first", "load"), milliseconds)
    unit = by_name.get(key) or next((shown for ending, shown in by_ending.items() if key.endswith(ending)), None)
    if unit:
        return unit(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
