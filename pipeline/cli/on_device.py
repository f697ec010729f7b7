"""`deploy measure --pipeline` and `--where-different`: what an agent runs besides benchmarks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pipeline import codec
from pipeline.cli.fleet import print_table
from pipeline.config_file import LoadedConfig
from pipeline.measuring import differing
from pipeline.measuring.subjects import How, Subject
from pipeline.measuring.whole import Prepared, advice, alike
from pipeline.measuring.whole import prepared as prepare
from pipeline.quantities import milliseconds
from pipeline.store import Store
from targets.device import connect
from targets.parts import WholeWay
from targets.records import Absent, TargetSpec

_DIFFERENT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and on what a command works."""

    loaded: LoadedConfig
    store: Store
    state: Path
    targets: tuple[TargetSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """The whole pipeline on one device, and what follows."""

    found: WholeWay
    folded: WholeWay | None  # without normalising, where the model's input can take its place
    alike: str
    advice: tuple[str, ...]

    def plain(self) -> Any:
        """For --json."""
        return {
            "whole": codec.plain(self.found),
            "folded": codec.plain(self.folded) if self.folded else None,
            "alike": self.alike,
            "advice": list(self.advice),
        }


def prepared(subject: Subject, place: Place) -> Prepared:
    """The sample's files and steps, as devices take them."""
    test = place.loaded.config.data.spec("test")
    return prepare(subject, test, place.loaded.base, place.store)


def whole_way(subject: Subject, way: Prepared, place: Place, spec: TargetSpec, how: How) -> Whole:
    """Push what is missing and run every part there."""
    with connect(spec, state=place.state) as device:
        files: Mapping[str, Path] = {**subject.paths, **way.paths}
        for digest, path in files.items():
            device.push(path, digest)
        request = subject.request(spec, how)
        found = device.whole_way(request, way.way, spec.step_timeout_s)
        folded = device.whole_way(request, way.folded, spec.step_timeout_s) if way.folded else None
    return Whole(
        found=found,
        folded=folded,
        alike=alike(found),
        advice=tuple(advice(found, way, folded, subject.format == "tflite")),
    )


def show_whole(whole: Whole) -> None:
    """The parts as a table, then what follows."""
    found, total = whole.found, whole.found.known_us
    click.echo(f"  the whole pipeline, over {found.runs} runs: {milliseconds(total / 1000)} where timed")
    lines = [
        (f"    {part.name}", "not timed", part.us.reason)
        if isinstance(part.us, Absent)
        else (f"    {part.name}", f"{part.us / 1000:.3f} ms", f"{part.us / total:.0%}")
        for part in found.parts
    ]
    print_table(("    part", "median", "share"), lines)
    for sentence in (whole.alike, *whole.advice):
        click.echo(f"  {sentence}")


def where_different(subject: Subject, place: Place, how: How, as_json: bool) -> None:
    """Compare on every device, tell, and leave with 1 where one differs by more than the gate tolerates."""
    outcomes = []
    for spec in place.targets:
        with connect(spec, state=place.state) as device:
            found = differing.where_different(
                device, subject, subject.request(spec, how), spec.step_timeout_s, place.store, spec.name
            )
        outcomes.append(found)
        if not as_json:
            _show_different(found)
    if as_json:
        click.echo(json.dumps([codec.plain(found) for found in outcomes]))
    if any(not differing.tolerated(found) for found in outcomes):
        raise click.exceptions.Exit(_DIFFERENT)


def _show_different(found: differing.Differing) -> None:
    click.echo(click.style(f"{found.model} on {found.target}, {found.runtime}", bold=True))
    for sentence in differing.told(found):
        click.echo(f"  {sentence}")
    if found.first is None:
        return
    marks = {found.first.number: "← first"}
    lines = [
        (
            f"    {layer.number + 1}",
            layer.op,
            layer.short_name,
            f"{layer.steps:.3g}" if layer.finite else "NaN",
            marks.get(layer.number, ""),
        )
        for layer in found.seen
    ]
    print_table(("    layer", "op", "name", "steps", ""), lines)
