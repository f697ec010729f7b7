"""`deploy lab up | status | exec | fault | down | doctor`."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import json_option

if TYPE_CHECKING:
    from targets.records import TargetSpec

_name_option: Callable[[Any], Any] = click.option(
    "--name", default="lab", show_default=True, metavar="LAB", help="Which lab; several can run at once."
)


@click.group()
def lab() -> None:
    """Rehearse on devices made of software: SSH hosts, ARM64 boards, faults. Linux and root only.

    \b
    deploy lab up --ssh 3 > targets.yaml
    deploy run --targets-from lab
    deploy lab down
    """


@lab.command()
@click.option("--ssh", type=click.IntRange(min=0), default=0, metavar="N", help="So many SSH hosts.")
@click.option("--arm64", type=click.IntRange(min=0), default=0, metavar="N", help="So many emulated ARM64 boards.")
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="BOARD",
    help="What the boards look like: rpi3, rpi4, rpi5 or jetson; may be repeated.  [default: rpi4]",
)
@click.option("--disk", default="256 MB", show_default=True, help="Size of each device's disk, kept in memory.")
@_name_option
def up(ssh: int, arm64: int, profiles: tuple[str, ...], disk: str, name: str) -> None:
    """Start a lab and print its targets as a fragment of deploy.yaml. It runs until `deploy lab down`.

    The first ARM64 board takes a minute or two more: its file system is fetched and kept in ~/.cache/edge-deploy.
    Latencies of ARM64 boards are those of an emulator, and are labelled so.
    """
    from dataclasses import replace

    from pipeline.quantities import parse_quantity
    from targets.lab.lab import Wanted
    from targets.lab.lab import up as start

    wanted = Wanted(ssh=ssh, arm64=arm64, disk_bytes=int(parse_quantity(disk, "bytes")))
    started = start(name, replace(wanted, profiles=profiles) if profiles else wanted)
    _print_fragment(started.target_specs())
    click.echo(f"# deploy run --targets-from {name}      deploy lab down --name {name}")


def _print_fragment(specs: "tuple[TargetSpec, ...]") -> None:
    from ruamel.yaml import YAML

    keys = ("transport", "host", "port", "user", "identity_file", "known_hosts", "ssh_config", "python")
    YAML().dump({"targets": {spec.name: {key: getattr(spec, key) for key in keys} for spec in specs}}, sys.stdout)


@lab.command()
@_name_option
@json_option
def status(name: str, as_json: bool) -> None:
    """Show the devices of a lab, and what is wrong with them on purpose."""
    from targets.lab.lab import ask
    from targets.lab.state import running_lab

    found = running_lab(name)
    faults = ask(found, {"op": "status"})
    rows = [
        {
            "name": device.name,
            "kind": device.kind,
            "port": device.port,
            "running": device.name in found.processes and found.processes[device.name].alive(),
            "link": faults[device.name],
        }
        for device in found.devices
    ]
    if as_json:
        click.echo(json.dumps({"name": name, "keeper": found.keeper.pid, "devices": rows}))
        return
    for row in rows:
        wrong = ", ".join(f"{key} {value}" for key, value in faults[row["name"]].items())
        running = "running" if row["running"] else "down"
        click.echo(f"{row['name']:<12} {row['kind']:<6} 127.0.0.1:{row['port']:<6} {running:<8} {wrong}".rstrip())


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@_name_option
@click.argument("device")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, device: str, command: tuple[str, ...]) -> None:
    """Run COMMAND as root on DEVICE, as if at its console; ends with the command's exit code."""
    import subprocess

    from targets.lab.lab import command_inside
    from targets.lab.state import running_lab

    done = subprocess.run(command_inside(running_lab(name), device, command), check=False)
    raise click.exceptions.Exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)


@lab.command()
@_name_option
@click.argument("device", required=False)
@click.argument("fault", required=False, metavar="[FAULT[=VALUE]]")
def fault(name: str, device: str | None, fault: str | None) -> None:
    """Make FAULT on DEVICE, such as `cut-after=4MB`, or on every device with `all`. Without arguments: list them.

    `restore` mends everything but lost data.
    """
    from pipeline.errors import UsageError
    from pipeline.quantities import parse_quantity
    from targets.lab.faults import FAULTS, inflict
    from targets.lab.state import running_lab

    if device is None:
        for key, row in FAULTS.items():
            suffix = {"bytes": "=BYTES", "s": "=SECONDS", "": ""}[row.dimension]
            click.echo(f"{key + suffix:<24} {row.says}")
        return
    if fault is None:
        raise UsageError("what should go wrong?", hint=f"one of {', '.join(FAULTS)}")
    kind, given, text = fault.partition("=")
    dimension = FAULTS[kind].dimension if kind in FAULTS else ""
    value = parse_quantity(text, dimension) if given and dimension else None
    if given and kind in FAULTS and not dimension:
        raise UsageError(f"{kind} takes no value", hint=f"deploy lab fault {device} {kind}")
    found = running_lab(name)
    for each in [one.name for one in found.devices] if device == "all" else [device]:
        inflict(found, each, kind, value)


@lab.command()
@_name_option
def down(name: str) -> None:
    """End a lab, or clear away what a crash has left of it."""
    from targets.lab.lab import down as end

    end(name)


@lab.command()
def doctor() -> None:
    """Say what this machine lacks for a lab, and the one command that installs it."""
    from pipeline.errors import EnvironmentFault
    from targets.lab.doctor import TITLES, apt_line, findings

    found = []
    for kind, title in TITLES.items():
        lacking = findings(kind)
        click.echo(f"{title:<14} {'ready' if not lacking else 'missing ' + ', '.join(one.missing for one in lacking)}")
        found += lacking
    if found:
        raise EnvironmentFault("this machine cannot run every kind of device", hint=apt_line(found) or "see above")
