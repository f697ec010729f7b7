"""`deploy calibration show | merge | drift`: the sketches that a run writes to its `calibration/` folder."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import json_option

if TYPE_CHECKING:
    from pipeline.calibration.sketch_file import SketchFile

_FILE = click.Path(path_type=Path, dir_okay=False)
_SHOWN = 20  # tensors, unless asked for all


@click.group()
def calibration() -> None:
    """Look at, merge and compare calibration sketches: how each tensor of the float model was distributed."""


@calibration.command()
@click.option("--method", default="best", show_default=True, help="The method whose range is shown.")
@click.option("--percentile", default=99.99, show_default=True, help="Of the method percentile.")
@json_option
@click.argument("file", type=_FILE)
def show(method: str, percentile: float, as_json: bool, file: Path) -> None:
    """Print every tensor of FILE: extremes, number of values, and the range a method chooses."""
    from typing import get_args

    from pipeline.calibration.methods import Method, choose
    from pipeline.calibration.sketch_file import read_sketches
    from pipeline.errors import UsageError, nearest

    known: dict[str, Method] = {name: name for name in get_args(Method)}
    if method not in known or not 50 < percentile <= 100:
        raise UsageError(
            f"--method {method} --percentile {percentile:g}{nearest(method, known)}",
            hint=f"methods: {', '.join(known)}; a percentile is over 50 and at most 100",
        )
    read = read_sketches(file)
    rows = []
    for name, sketch in sorted(read.sketches.items()):
        chosen = choose(sketch, known[method], percentile)
        extremes = {"min": sketch.low, "max": sketch.high, "values": sketch.total, "buckets": len(sketch.counts)}
        rows.append({"tensor": name, **extremes, "low": chosen.low, "high": chosen.high, "method": chosen.method})
    if as_json:
        click.echo(json.dumps({**_identity(read), "samples": read.samples, "tensors": rows}))
        return
    _say(read)
    for row in rows:
        extremes_text = f"{row['min']:>11.5g} … {row['max']:<11.5g}"
        click.echo(f"{extremes_text} {row['low']:>11.5g} … {row['high']:<11.5g} {row['method']:<11}{row['tensor']}")


@calibration.command()
@click.option("-o", "--output", type=_FILE, required=True, help="Where the merged sketches go.")
@json_option
@click.argument("files", nargs=-1, required=True, type=_FILE)
def merge(output: Path, as_json: bool, files: tuple[Path, ...]) -> None:
    """Add up the sketches in FILES, which must be of one float model and of different samples."""
    from pipeline.calibration.sketch_file import merge_files, read_sketches

    merged = merge_files({str(file): read_sketches(file) for file in files})
    merged.write(output)
    if as_json:
        click.echo(json.dumps(_identity(merged)))
        return
    _say(merged)


@calibration.command()
@click.option("--max-psi", type=float, default=None, help="End with 1 when a tensor's index is above this.")
@click.option("--all", "everything", is_flag=True, help="Print all tensors, not only the worst.")
@json_option
@click.argument("reference", type=_FILE)
@click.argument("newer", type=_FILE)
def drift(max_psi: float | None, everything: bool, as_json: bool, reference: Path, newer: Path) -> None:
    """Compare what NEWER observed with REFERENCE, worst tensor first.

    The population stability index is read as: under 0.1 the same, over 0.25 another distribution.
    """
    from pipeline.calibration.drift import SLIGHT, STRONG, drift
    from pipeline.calibration.sketch_file import read_sketches
    from pipeline.errors import InputError

    one, other = read_sketches(reference), read_sketches(newer)
    found = drift(one.sketches, other.sketches)
    if not found:
        raise InputError(f"{reference} and {newer} share no tensor", hint="compare sketches of one model and format")
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found]))
    else:
        if one.model != other.model:
            click.echo("note: these are two different float models", err=True)
        click.echo(f"{'PSI':>8} {'JS bits':>8} {'outside':>8}  tensor")
        for each in found if everything else found[:_SHOWN]:
            click.echo(f"{each.psi:8.3f} {each.divergence:8.4f} {each.outside:8.2%}  {each.tensor}")
        counts = [sum(each.psi > limit for each in found) for limit in (SLIGHT, STRONG)]
        click.echo(f"{len(found)} tensors: {counts[0]} over {SLIGHT} (slight), {counts[1]} over {STRONG} (strong)")
    if max_psi is not None and found[0].psi > max_psi:
        raise click.exceptions.Exit(1)


def _identity(read: "SketchFile") -> dict[str, object]:
    return {"format": read.format, "model": read.model, "sha256": read.digest, "samples": len(read.samples)}


def _say(read: "SketchFile") -> None:
    click.echo(f"{read.format}, {len(read.sketches)} tensors over {len(read.samples)} samples")
    click.echo(f"float model {read.model}")
    click.echo(f"content     {read.digest}")
