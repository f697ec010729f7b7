"""`deploy rehearse`."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
)
from pipeline.cli.terminal import rendered

if TYPE_CHECKING:
    from pipeline.flow import Observer, Step
    from pipeline.rehearsal.schedule import Schedule
    from targets.lab.lab import Wanted
    from targets.lab.state import LabDevice, LabState


@click.command()
@config_option
@click.option(
    "--faults",
    "faults",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("faults.yaml"),
    show_default=True,
    help="The schedule: which devices, and what goes wrong with them when.",
)
@click.option(
    "--targets-from", "lab", metavar="LAB", help="Use a running lab; default: one as faults.yaml says, for this run."
)
@recipe_option
@out_option
@state_option
@click.option("--dry-run", is_flag=True, help="Print which device would get which fault when; start nothing.")
@json_option
def rehearse(
    config: Path,
    faults: Path,
    lab: str | None,
    recipes: tuple[str, ...],
    out: Path,
    state: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run on devices made of software while they fail as faults.yaml says, mend them, and run again.

    Exit code: 0 when every device does after its trouble what it should and no file on it is half-written, 1 when
    not, 4 when some fault of the schedule did not happen. All devices are mended in between, whoever broke them.
    Whether a candidate is within its budgets is for `deploy run` to say. Linux and root only.
    """
    from pipeline.config_file import load_config
    from pipeline.rehearsal.draw import draw
    from pipeline.rehearsal.perform import perform
    from pipeline.rehearsal.schedule import load_schedule
    from pipeline.reporting.rehearsal import PlanView, RehearsalView, plan_json, rehearsal_json

    schedule = load_schedule(faults)
    loaded = load_config(config)
    if dry_run:
        planned = draw(schedule, _devices(schedule, lab))
        click.echo(plan_json(planned) if as_json else rendered(PlanView(planned)), nl=as_json)
        return
    with _lab(schedule, lab) as started:
        loaded = loaded.with_targets(started.target_specs())
        found = perform(
            loaded,
            schedule,
            started,
            recipes=recipes,
            state=state_folder(config, state),
            out=out.resolve(),
            display=_display,
        )
    click.echo(rehearsal_json(found) if as_json else rendered(RehearsalView(found)), nl=as_json)
    raise click.exceptions.Exit({"pass": 0, "fail": 1, "inconclusive": 4}[found.verdict])


@contextmanager
def _display(ordered: "Sequence[Step]", title: str) -> "Iterator[Observer]":
    from pipeline.cli.progress import observer

    click.echo(f"{title}:", err=True)
    with observer(ordered) as shown:
        yield shown


def _devices(schedule: "Schedule", lab: str | None) -> "tuple[LabDevice, ...]":
    from targets.lab.lab import plan
    from targets.lab.state import running_lab

    return running_lab(lab).devices if lab else plan(_wanted(schedule))


def _wanted(schedule: "Schedule") -> "Wanted":
    from pipeline.errors import UsageError
    from targets.lab.lab import Wanted

    if schedule.lab is None:
        hint = "add `lab: { ssh: 3 }` to the file, or name a running lab with --targets-from"
        raise UsageError("the schedule does not say which devices to start", hint=hint)
    section = schedule.lab
    return Wanted(counts=section.counts, profiles=section.profiles, disk_bytes=int(section.disk))


@contextmanager
def _lab(schedule: "Schedule", name: str | None) -> "Iterator[LabState]":
    """The lab that was named, or one that lives as long as the rehearsal."""
    from targets.lab.lab import down, up
    from targets.lab.state import lab_folder, running_lab

    if name:
        yield running_lab(name)
        return
    name = f"rehearsal-{os.getpid()}"
    try:
        yield up(name, _wanted(schedule), bound=True, say=lambda text: click.echo(f"{text} …", err=True))
    finally:
        if lab_folder(name).exists():
            down(name)
