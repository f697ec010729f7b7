"""Options that several commands share."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

config_option: Callable[[Any], Any] = click.option(
    "--config",
    "-c",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("deploy.yaml"),
    show_default=True,
    help="The configuration; paths in it are relative to it.",
)
json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON on standard output; progress goes to standard error."
)
out_option: Callable[[Any], Any] = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("deploy-out"),
    show_default=True,
    help="Folder for the report and the models.",
)
state_option: Callable[[Any], Any] = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="DEPLOY_STATE",
    help="Folder for records and blobs.  [default: .deploy beside the configuration]",
)
target_option: Callable[[Any], Any] = click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="SELECTOR",
    help="Only these: a name, group, glob, or 'site=lyon & soc=bcm2712'; may be repeated.",
)
recipe_option: Callable[[Any], Any] = click.option(
    "--recipe", "recipes", multiple=True, metavar="NAME", help="Only this recipe; may be repeated."
)


def state_folder(config: Path, state: Path | None) -> Path:
    """Where records and blobs are kept: as asked, else `.deploy` beside the configuration."""
    return (state or config.resolve().parent / ".deploy").resolve()


def ask_passphrase(path: Path) -> str:
    """A key's passphrase from the person at the terminal; "" where there is none."""
    if not sys.stdin.isatty():
        return ""
    passphrase: str = click.prompt(f"passphrase of {path}", hide_input=True, err=True, default="", show_default=False)
    return passphrase
