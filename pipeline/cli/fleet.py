"""What commands over several devices share: choosing them, working on all, and telling how it went."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from pipeline.cli.options import state_folder
from pipeline.cli.progress import counting
from pipeline.config_file import load_config
from pipeline.inventory.selector import select
from pipeline.inventory.sheets import kept_facts
from targets.errors import DeployError
from targets.records import TargetSpec

_Found = TypeVar("_Found")
# Beyond this many handshakes at once, two cores of this side only make each other wait.
AT_ONCE = 32


def chosen(config: Path, state: Path | None, selectors: Sequence[str]) -> tuple[TargetSpec, ...]:
    """The devices that the selectors mean; all without one."""
    return select(load_config(config).target_specs(), selectors, kept_facts(state_folder(config, state)))


def on_all(
    specs: Sequence[TargetSpec], work: Callable[[TargetSpec], _Found]
) -> Iterator[tuple[TargetSpec, _Found | DeployError]]:
    """The work on every device, some at a time, in their order; an expected failure is an outcome like others."""

    def one(spec: TargetSpec) -> _Found | DeployError:
        try:
            return work(spec)
        except DeployError as error:
            return error

    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="device")
    try:
        with counting("devices", len(specs)) as step:
            for spec, found in zip(specs, pool.map(one, specs), strict=True):
                step()
                yield spec, found
    finally:
        pool.shutdown(cancel_futures=True)


def failures(outcomes: Iterable[tuple[TargetSpec, object]]) -> list[DeployError]:
    """The outcomes that are errors."""
    return [found for _, found in outcomes if isinstance(found, DeployError)]


def outcome_json(spec: TargetSpec, found: Any) -> dict[str, Any]:
    """A record as it is, an error as `Failed` is written."""
    if isinstance(found, DeployError):
        said = {"code": found.code, "message": found.message, "hint": found.hint}
        return {"target": spec.name, "kind": "failed", **said}
    return asdict(found)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns, without those that are empty in every row."""
    body = [list(row) for row in rows]
    used = [n for n, _ in enumerate(titles) if any(row[n] for row in body)]
    widths = {n: max(len(row[n]) for row in [list(titles), *body]) for n in used}
    for row in ([title.upper() for title in titles], *body):
        click.echo("  ".join(row[n].ljust(widths[n]) for n in used).rstrip())


def print_failures(failed: Iterable[DeployError]) -> None:
    """Each error with its hint, on standard error."""
    for error in failed:
        click.echo(click.style("error: ", fg="red", bold=True) + error.message, err=True)
        if error.hint:
            click.echo(click.style("  hint: ", fg="cyan") + error.hint, err=True)
