"""`deploy plan | push | status | rollback | reconcile | pin`."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline.cli.options import config_option, json_option, state_folder, state_option
from pipeline.cli.terminal import rendered
from pipeline.cli.termination import ending_in_order

if TYPE_CHECKING:
    from pipeline.config_file import LoadedConfig
    from pipeline.release.keys import PublicKey
    from pipeline.rollout.bundles import Bundles
    from pipeline.rollout.engine import Engine
    from pipeline.rollout.journal import Journal
    from pipeline.rollout.records import Policy, Result
    from targets.records import TargetSpec

_LEAST_EVERY_S = 1.0


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What all of these commands take."""
    for option in (
        json_option,
        click.option("--journal", metavar="URL", envvar="DEPLOY_JOURNAL", help="Where rollouts are remembered."),
        state_option,
        click.option(
            "--targets-from", "lab", metavar="LAB", help="Use the devices of a running lab instead of the file's."
        ),
        click.option(
            "--target",
            "targets",
            multiple=True,
            metavar="SELECTOR",
            help="Only these: a name, a group, a glob, or an expression; may be repeated.",
        ),
        config_option,
    ):
        command = option(command)
    return command


_release_option = click.option(
    "--release",
    "words",
    required=True,
    metavar="FILE|ID",
    help="The bundle, or the first digits of a release pushed before.",
)


@dataclass(frozen=True, slots=True)
class _Work:
    """What a command works with."""

    specs: "tuple[TargetSpec, ...]"
    every: "tuple[TargetSpec, ...]"
    policy: "Policy"
    journal: "Journal"
    bundles: "Bundles"
    engine: "Engine"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.specs)


@contextmanager
def _work(
    config: Path, targets: Sequence[str], lab: str | None, state: Path | None, journal: str | None
) -> "Iterator[_Work]":
    from pipeline.cli.rollout_progress import watching
    from pipeline.config_file import load_config
    from pipeline.inventory.selector import select
    from pipeline.inventory.sheets import kept_facts, kept_records
    from pipeline.rollout.bundles import Bundles
    from pipeline.rollout.engine import Engine
    from pipeline.rollout.fitting import ReleaseFit
    from pipeline.rollout.fleet import Fleet
    from pipeline.rollout.journal import open_journal
    from targets.device import connect

    loaded, folder = load_config(config), state_folder(config, state)
    if lab is not None:
        from targets.lab.state import running_lab

        loaded = loaded.with_targets(running_lab(lab).target_specs())
    every = loaded.target_specs()
    settings = loaded.config.rollout
    source = click.get_current_context().get_parameter_source("journal")
    kept = open_journal(
        journal or loaded.config.journal, folder, trusted=source is ParameterSource.ENVIRONMENT and bool(journal)
    )
    with closing(kept), ending_in_order():
        bundles = Bundles(kept, folder / "releases", _keys(loaded))
        fleet = Fleet(
            specs={spec.name: spec for spec in every},
            connect=lambda spec: connect(spec, state=folder, lazily=True),
            parallel=settings.parallel,
            retry_s=settings.retry,
        )
        sheets = kept_records(folder)
        with watching() as shown:
            yield _Work(
                select(every, targets, kept_facts(folder)),
                every,
                settings.policy(warm_s=loaded.config.measure.warm),
                kept,
                bundles,
                Engine(
                    journal=kept,
                    fleet=fleet,
                    blobs=bundles.blob,
                    watching=shown,
                    fits=ReleaseFit(bundles.blob, sheets),
                    sheets=sheets,
                    lend=bundles.lend,
                    signed_by=bundles.signed_by,
                ),
            )


def _keys(loaded: "LoadedConfig") -> "list[PublicKey] | None":
    """Who may have signed a release; None when nobody needs to."""
    from pipeline.release.keys import load_public_key, public_path_of

    own = loaded.config.release.key
    files = [Path(path) for path in loaded.config.rollout.trusted] or ([public_path_of(Path(own))] if own else [])
    return [load_public_key(loaded.base / path.expanduser()) for path in files] or None


@click.command()
@_release_option
@_options
def plan(words: str, as_json: bool, **options: Any) -> None:
    """Ask the devices, and print what `deploy push` would do: steps, bytes, waves and time.

    Nothing is changed. Exit code 3 when a device could not be reached or cannot take the release.
    """
    from pipeline.reporting.rollout import PlanView, plan_json

    with _work(**options) as work:
        release = work.bundles.push(words)
        planned = work.engine.plan(release, work.policy, work.names)
        names = work.journal.names()
    click.echo(plan_json(planned) if as_json else rendered(PlanView(planned, names)), nl=as_json)
    raise click.exceptions.Exit(3 if any(one.state in ("failed", "pending") for one in planned.devices) else 0)


@click.command()
@_release_option
@click.option("--allow-downgrade", is_flag=True, help="Also where a newer release has proved itself already.")
@_options
def push(words: str, allow_downgrade: bool, as_json: bool, **options: Any) -> None:
    """Bring a release to devices in waves; each counts when what is installed there has answered right.

    Run again after any interruption, it goes on from there. Exit code: 0 every device has it, 1 a gate or a device
    refused the release, 3 a device was not reached or has troubles of its own, 130 interrupted.
    """
    with _work(**options) as work:
        release = work.bundles.push(words)
        left = work.journal.rollouts("running", "undoing", release=release.id)
        left = tuple(one for one in left if one.kind == "push")
        mine = {member.device for one in left[:1] for member in work.journal.members(one.id)}
        if left and mine & set(work.names):
            rollout = work.journal.take_over(left[0].id)
            work.engine.watching.noted(f"going on with rollout {rollout.id}")
            work.engine.look(sorted(mine & {spec.name for spec in work.every}))
            result = work.engine.go_on(rollout, release)
        else:
            planned = work.engine.plan(release, work.policy, work.names, allow_downgrade=allow_downgrade)
            for one in planned.devices:
                work.bundles.lend(one.installed)
            work.engine.watching.planned(planned)
            result = work.engine.push(planned, release, work.policy, allow_downgrade=allow_downgrade)
        names = work.journal.names()
    _show(result, names, as_json)


@click.command()
@click.option("--to", "to", metavar="ID", help="This release instead of the one before; the first digits of its id.")
@_options
def rollback(to: str | None, as_json: bool, **options: Any) -> None:
    """Bring devices back to the release before the one they have, once that has answered right there.

    Exit code: 0 all are back, 1 the release before was refused by a device, 3 a device was not reached.
    """
    from pipeline.rollout.commands import rollback as go_back

    with _work(**options) as work:
        wanted = _one_release(work.journal, to) if to else ""
        result = go_back(work.engine, work.names, work.policy, wanted)
        names = work.journal.names()
    _show(result, names, as_json)


@click.command()
@click.option("--every", metavar="TIME", help="Again and again, with so much time in between, such as 10m.")
@_options
def reconcile(every: str | None, as_json: bool, **options: Any) -> None:
    """Bring devices to what they are to have: those that were off, and what a dead controller left half-way.

    A device that has refused a release keeps what it has. Exit code as of `deploy push`.
    """
    from pipeline.reporting.rollout import results_json
    from pipeline.rollout.commands import reconcile as bring

    pause_s = _pause_s(every) if every else 0.0
    with ending_in_order():
        while True:
            with _work(**options) as work:
                results = bring(work.engine, work.names, work.policy, work.bundles.reopen)
                names = work.journal.names()
            if as_json:
                click.echo(results_json(results))
            for result in results:
                if not as_json:
                    _print(result, names)
            if not results and not as_json:
                click.echo("every device that was reached has what it is to have")
            if not every:
                raise click.exceptions.Exit(max((exit_code(result) for result in results), default=0))
            time.sleep(pause_s)


@click.command()
@click.option("--offline", is_flag=True, help="Ask no device; print what the journal has.")
@_options
def status(offline: bool, as_json: bool, **options: Any) -> None:
    """Where each device is and why: what it has, what it is to have, and since when.

    The devices are asked; where the journal was wrong, that is told. Exit code 3 when one is not where it is to be.
    """
    from pipeline.reporting.rollout import StatusView, status_json
    from pipeline.rollout.commands import status as look

    with _work(**options) as work:
        rows = look(work.engine, work.names, ask=not offline)
        names = work.journal.names()
    click.echo(status_json(rows) if as_json else rendered(StatusView(rows, names)), nl=as_json)
    well = {"current", "pinned", "unknown", "refused"}
    raise click.exceptions.Exit(0 if all(row.state in well for row in rows) else 3)


@click.command()
@click.argument("device")
@click.argument("release", required=False)
@click.option("--remove", is_flag=True, help="Let the device take part again.")
@_options
def pin(device: str, release: str | None, remove: bool, as_json: bool, **options: Any) -> None:
    """Keep DEVICE at RELEASE (default: the one it was last seen with), whatever is pushed."""
    from pipeline.errors import UsageError, nearest

    with _work(**options) as work:
        known = {spec.name: spec for spec in work.every}
        if device not in known:
            raise UsageError(f"{device}: no target{nearest(device, known)}", hint="deploy targets list shows them")
        row = work.journal.known().get(device)
        last = row.installed if row is not None else ""
        wanted = "" if remove else _one_release(work.journal, release) if release else last
        if not wanted and not remove:
            raise UsageError(
                f"nothing is known to be on {device}", hint=f"deploy status --target {device}, or name one"
            )
        work.journal.pin(device, known[device].device_class, wanted)
        name = work.journal.names().get(wanted, wanted[:12])
    if as_json:
        from pipeline.codec import canonical

        click.echo(canonical({"device": device, "release": wanted}).decode())
    else:
        click.echo(f"{device}: " + (f"pinned to {name}" if wanted else "takes part again"))


def exit_code(result: "Result") -> int:
    """What a rollout means to whoever called."""
    from pipeline.rollout.records import ANSWER, FIT, HEALTH, LATENCY, MEMORY

    of_release = {ANSWER, FIT, HEALTH, LATENCY, MEMORY}
    bad = {"failed", "reverted", "lost", "pending", "waiting"} - ({"reverted"} if result.kind == "rollback" else set())
    troubled = [member for member in result.members if member.state in bad]
    if result.state == "stopped" or any(member.code in of_release for member in troubled):
        return 1
    return 3 if troubled else 0


def _show(result: "Result", names: dict[str, str], as_json: bool) -> None:
    from pipeline.reporting.rollout import result_json

    if as_json:
        click.echo(result_json(result))
    else:
        _print(result, names)
    raise click.exceptions.Exit(exit_code(result))


def _print(result: "Result", names: dict[str, str]) -> None:
    from pipeline.reporting.rollout import ResultView

    click.echo(rendered(ResultView(result, names)), nl=False)


def _one_release(journal: "Journal", words: str) -> str:
    from pipeline.errors import UsageError

    found = journal.find(words.lower())
    if len(found) != 1:
        hint = "deploy status --json has the ids in full"
        raise UsageError(f"{len(found) or 'no'} releases begin with {words!r}", hint=hint)
    return found[0]


def _pause_s(text: str) -> float:
    from pipeline.errors import UsageError
    from pipeline.quantities import parse_quantity

    found = parse_quantity(text[:-1] + "min" if text.endswith("m") else text, "s")
    if found < _LEAST_EVERY_S:
        raise UsageError(f"--every {text}: too often", hint="a minute is plenty")
    return found
