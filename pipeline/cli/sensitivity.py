"""`deploy sensitivity`."""

import json
from pathlib import Path

import click

from pipeline.cli.options import config_option, json_option, state_folder, state_option
from pipeline.cli.terminal import rendered


@click.command()
@config_option
@state_option
@click.option("--format", "format", type=click.Choice(["tflite", "onnx"]), help="Default: the source's first format.")
@click.option(
    "--confirm",
    type=click.IntRange(0, 40),
    default=3,
    show_default=True,
    metavar="N",
    help="Hold the N worst blocks against the task metrics.",
)
@json_option
def sensitivity(config: Path, state: Path | None, format: str | None, confirm: int, as_json: bool) -> None:
    """Rank the blocks of the model by what they lose in int8, each alone, and name the cheapest fix.

    The worst are then mended one at a time with all others in int8, and the task metrics are asked whether that helps.
    Exports and calibrates first, as `deploy run` does, and keeps that for it. Needs no target.
    """
    from pipeline import codec
    from pipeline.cli.progress import observer
    from pipeline.config_file import load_config
    from pipeline.errors import ConversionFailed
    from pipeline.flow import execute
    from pipeline.records import Refusal
    from pipeline.stages.context import Context
    from pipeline.stages.run import sensitivity_steps
    from pipeline.store import Store, explained_disk_errors
    from pipeline.worker import Worker

    loaded, store = load_config(config), Store(state_folder(config, state))
    with Worker() as worker:
        ordered = sensitivity_steps(Context(loaded=loaded, store=store, worker=worker), format, confirm)
        with explained_disk_errors(store.root), store.exclusive(), observer(ordered) as watching:
            results = execute(ordered, store, watching)
    found, on_task = results[ordered[3]], results[ordered[4]] if confirm else None
    for one in (found, on_task):
        if isinstance(one, Refusal):
            raise ConversionFailed(one.reason, hint=one.hint)
    if as_json:
        click.echo(json.dumps({**codec.plain(found), "on_task": codec.plain(on_task) if on_task else None}, indent=2))
        return
    from rich.table import Table

    from pipeline.reporting.printable import printable
    from pipeline.reporting.searching import blocks_grid, confirmed_grid

    grids = [blocks_grid(found.blocks, len(found.blocks), found.int8_sqnr_db)]
    grids += [confirmed_grid(on_task)] if on_task else []
    for number, grid in enumerate(grids):
        table = Table(*grid.columns, box=None, pad_edge=False, header_style="dim")
        for row in grid.rows:
            table.add_row(*map(printable, row))
        click.echo("\n" * bool(number) + printable(grid.title) + "\n" + rendered(table), nl=False)
