"""`deploy targets list | probe NAME`."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from pipeline.cli.options import config_option, json_option, state_folder


@click.group()
def targets() -> None:
    """List the devices of deploy.yaml, or look at one."""


@targets.command("list")
@config_option
@json_option
def list_targets(config: Path, as_json: bool) -> None:
    """List the targets without connecting to any."""
    from pipeline.config_file import load_config

    specs = load_config(config).target_specs()
    if as_json:
        click.echo(json.dumps([asdict(spec) for spec in specs]))
        return
    for spec in specs:
        where = {"local": "this machine", "adb": spec.serial or spec.host or "whichever is attached"}
        place = where.get(spec.transport, spec.host) + (f":{spec.port}" if spec.port else "")
        click.echo(f"{spec.name:<16} {spec.transport:<6} {(spec.user + '@') if spec.user else ''}{place}")


@targets.command()
@config_option
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), envvar="DEPLOY_STATE")
@json_option
@click.argument("name")
def probe(config: Path, state: Path | None, as_json: bool, name: str) -> None:
    """Connect to NAME and print what it is: CPU, system, runtimes, governor, space, meters."""
    from pipeline.config_file import load_config
    from pipeline.errors import UsageError, nearest
    from targets.device import connect

    known = {spec.name: spec for spec in load_config(config).target_specs()}
    if name not in known:
        raise UsageError(f"{name}: not a target of {config}{nearest(name, known)}", hint=f"it has: {', '.join(known)}")
    with connect(known[name], state=state_folder(config, state)) as device:
        facts = device.facts()
    if as_json:
        click.echo(json.dumps(asdict(facts)))
        return
    for key, text in _lines(asdict(facts)):
        click.echo(f"{key:<18} {text}")


def _lines(facts: dict[str, object]) -> list[tuple[str, str]]:
    from pipeline.quantities import size

    rows = []
    for key, value in facts.items():
        title = key.replace("_", " ")
        if isinstance(value, dict) and value.get("kind") == "absent":
            text = f"— ({value['reason']})"
        elif isinstance(value, dict):
            text = ", ".join(f"{name} {version}" for name, version in value.items()) or "none"
        elif isinstance(value, list | tuple):
            text = " ".join(map(str, value)) or "none"
        elif key.endswith("_bytes"):
            title, text = key.removesuffix("_bytes").replace("_", " "), size(float(str(value)))
        elif key.endswith("_c") and isinstance(value, float):
            title, text = key.removesuffix("_c"), f"{value:.1f} °C"
        else:
            text = str(value)
        if text:
            rows.append((title, text))
    return rows
