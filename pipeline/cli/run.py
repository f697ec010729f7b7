"""`deploy run`."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import (
    config_option,
    json_option,
    out_option,
    recipe_option,
    state_folder,
    state_option,
    target_option,
)
from pipeline.cli.terminal import rendered
from pipeline.stages import STAGES

if TYPE_CHECKING:
    from pipeline.config_file import LoadedConfig
    from pipeline.flow import Planned
    from pipeline.records import Report
    from pipeline.release.keys import PrivateKey

_EXIT_CODES = {"pass": 0, "fail": 1, "device-error": 3, "inconclusive": 4}


@click.command()
@config_option
@out_option
@state_option
@click.option("--from", "start", type=click.Choice(STAGES), help="Do this stage and all after it again.")
@target_option
@recipe_option
@click.option(
    "--targets-from",
    "lab",
    metavar="LAB",
    help="Use the devices of a running lab (`deploy lab up`) instead of the configuration's targets.",
)
@click.option(
    "--sequence",
    type=click.IntRange(min=1),
    default=1,
    envvar="DEPLOY_SEQUENCE",
    help="Least number of a new release, where the state folder does not outlive the run: CI's run number.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be done and what is kept from earlier runs.")
@json_option
def run(
    config: Path,
    out: Path,
    state: Path | None,
    start: str | None,
    targets: tuple[str, ...],
    recipes: tuple[str, ...],
    lab: str | None,
    sequence: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Export, calibrate, quantize, validate, package, push, measure, gate, release and report.

    Every finished step is kept: a second run repeats only what observes devices and what follows from that. Exit code:
    0 a candidate passes, 1 none does, 2 usage or configuration, 3 device or environment, 4 not enough was measured.
    """
    from pipeline.cli.progress import observer
    from pipeline.config_file import load_config
    from pipeline.flow import execute, forced_stages, plan
    from pipeline.stages.context import Context
    from pipeline.stages.release import Releasing
    from pipeline.stages.run import Selection, steps
    from pipeline.store import Store, check_writable, explained_disk_errors
    from pipeline.worker import Worker

    loaded = load_config(config)
    if lab is not None:
        from targets.lab.state import running_lab

        loaded = loaded.with_targets(running_lab(lab).target_specs())
    store = Store(state_folder(config, state))
    forced = forced_stages(start)
    with Worker() as worker:
        context = Context(loaded=loaded, store=store, worker=worker)
        releasing = Releasing(key=None if dry_run else _key(loaded), at_least=sequence)
        ordered, reported = steps(context, Selection(recipes=recipes, targets=targets), out.resolve(), releasing)
        if dry_run:
            _show_plan(plan(ordered, store, forced), as_json)
            return
        check_writable(out.resolve())  # now, not after everything has been measured
        with explained_disk_errors(store.root), store.exclusive(), observer(ordered) as watching:
            report = execute(ordered, store, watching, forced)[reported]
    _print(report, out, as_json)
    raise click.exceptions.Exit(_EXIT_CODES[report.status])


def _key(loaded: "LoadedConfig") -> "PrivateKey | None":
    """The key to sign with: read, and its passphrase asked for, before the run begins and not at its end."""
    path = loaded.config.release.key
    if not path:
        return None
    from pipeline.cli.options import ask_passphrase
    from pipeline.release.keys import load_private_key

    return load_private_key(loaded.base / Path(path).expanduser(), ask_passphrase)


def _print(report: "Report", out: Path, as_json: bool) -> None:
    """The verdict is the exit code's to tell, also when nobody reads the output to its end."""
    try:
        if as_json:
            from pipeline.reporting.schema import report_json

            sys.stdout.write(report_json(report).decode())
        else:
            sys.stdout.write(_for_people(report, out))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _for_people(report: "Report", out: Path) -> str:
    from pipeline.reporting.console import ReportView

    where = [f"  {report.released}"]
    if report.bundle:
        where.append(f"release: {out / report.bundle}")
    where.append(f"report: {out / 'report.html'}")
    return rendered(ReportView(report)) + "".join(f"{line}\n" for line in where)


def _show_plan(rows: "list[Planned]", as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([{"stage": p.step.stage, "name": p.step.name, "kept": p.reuse} for p in rows]))
        return
    for stage in STAGES:
        marks = [f"{p.step.name}{' (kept)' if p.reuse else ''}" for p in rows if p.step.stage == stage]
        if not marks:
            continue  # sensitivity and search, where no recipe asks for them
        names = ", ".join(marks) if marks != [stage] else "to do"
        click.echo(f"{stage:<10} {names.replace(f'{stage} (kept)', 'kept')}")
