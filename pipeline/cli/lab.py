"""`deploy lab up | status | exec | fault | down | doctor`."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import json_option
from targets.lab.kinds import KINDS
from targets.lab.profiles import profiles
from targets.lab.state import LOOPBACK

if TYPE_CHECKING:
    from targets.lab.state import LabState
    from targets.records import TargetSpec

_name_option: Callable[[Any], Any] = click.option(
    "--name", default="lab", show_default=True, metavar="LAB", help="Which lab; several can run at once."
)


@click.group()
def lab() -> None:
    """Rehearse on devices made of software, and make them fail. Linux and root only.

    \b
    deploy lab up --ssh 3 > targets.yaml
    deploy run --targets-from lab
    deploy lab down
    """


def _counts(command: Callable[..., None]) -> Callable[..., None]:
    """An option for every kind of device, such as `--ssh 3`."""
    for kind in reversed(tuple(KINDS.values())):
        many = click.option(
            f"--{kind.name}",
            type=click.IntRange(min=0),
            default=0,
            metavar="N",
            help=f"So many {kind.title}: {kind.says}.",
        )
        command = many(command)
    return command


@lab.command()
@_counts
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="DEVICE",
    help=f"What devices look like: {', '.join(profiles())}; may be repeated.",
)
@click.option("--disk", default="256 MB", show_default=True, help="Size of each device's disk, kept in memory.")
@_name_option
def up(profiles: tuple[str, ...], disk: str, name: str, **counts: int) -> None:
    """Start a lab and print its targets as a fragment of deploy.yaml. It runs until `deploy lab down`.

    The first emulated device takes a minute or two more: its file system is fetched and kept in ~/.cache/edge-deploy.
    Latencies of emulated devices are those of an emulator, and are labelled so.
    """
    from pipeline.quantities import parse_quantity
    from targets.lab.lab import Wanted
    from targets.lab.lab import up as start

    asked = {kind: number for kind, number in counts.items() if number}
    wanted = Wanted(counts=asked, profiles=profiles, disk_bytes=int(parse_quantity(disk, "bytes")))
    started = start(name, wanted, lambda text: click.echo(f"{text} …", err=True))
    for reason in dict.fromkeys(started.lacking.values()):
        names = [device for device, why in started.lacking.items() if why == reason]
        click.echo(f"{', '.join(names[:3])}{' and others' * (len(names) > 3)}: {reason}", err=True)
    _print_fragment(started.target_specs())
    click.echo(f"# deploy run --targets-from {name}      deploy lab down --name {name}")


def _print_fragment(specs: "tuple[TargetSpec, ...]") -> None:
    from ruamel.yaml import YAML

    keys = ("transport", "host", "port", "user", "identity_file", "known_hosts", "ssh_config", "python")
    said = {spec.name: {key: found for key in keys if (found := getattr(spec, key))} for spec in specs}
    YAML().dump({"targets": said}, sys.stdout)


@lab.command()
@_name_option
@json_option
def status(name: str, as_json: bool) -> None:
    """Show the devices of a lab, and what is wrong with them on purpose."""
    from targets.lab.lab import ask
    from targets.lab.state import running_lab

    found = running_lab(name)
    links = ask(found, {"op": "status"})
    rows = [
        {
            "name": device.name,
            "kind": device.kind,
            "service": device.service,
            "port": device.port,
            "running": device.name in found.processes and found.processes[device.name].alive(),
            "link": links[device.name]["faults"],
            "passed_bytes": links[device.name]["passed_bytes"],
            "power": _power(found, device.name),
        }
        for device in found.devices
    ]
    if as_json:
        click.echo(json.dumps({"name": name, "keeper": found.keeper.pid, "devices": rows}))
        return
    for row in rows:
        running = "running" if row["running"] else "down"
        cells = f"{row['name']:<14} {row['kind']:<8} {LOOPBACK}:{row['port']:<6} {running:<8}"
        click.echo(f"{cells} {_felt(row['power']):<14} {_wrong(row['link'])}".rstrip())


def _wrong(link: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in link.items())


def _power(lab: "LabState", device: str) -> dict[str, Any] | None:
    """What the device draws and how hot it is, by the lab's own books; nothing for one without sensors."""
    from targets.lab.power.truth import last_truth

    last = last_truth(lab.folder / device / "power.jsonl")
    return {name: getattr(last, name) for name in ("power_w", "temperature_c", "throttled")} if last else None


def _felt(power: dict[str, Any] | None) -> str:
    if power is None:
        return ""
    slow = " throttled" if power["throttled"] else ""
    return f"{power['power_w']:.2f} W {power['temperature_c']:.0f} °C{slow}"


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
    from pipeline.rehearsal.schedule import parse_fault
    from targets.lab.faults import FAULTS, inflict
    from targets.lab.state import running_lab

    if device is None:
        for key, row in FAULTS.items():
            suffix = {"bytes": "=BYTES", "s": "=SECONDS", "share": "=SHARE", "k": "=KELVIN", "": ""}[row.dimension]
            click.echo(f"{key + suffix:<24} {row.says}")
        return
    if fault is None:
        raise UsageError("what should go wrong?", hint=f"one of {', '.join(FAULTS)}")
    kind, value = parse_fault(fault)
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
    from targets.lab.doctor import apt_line, findings

    found = []
    for kind in KINDS.values():
        lacking = findings(kind.name)
        click.echo(
            f"{kind.title:<18} {'ready' if not lacking else 'missing ' + ', '.join(one.missing for one in lacking)}"
        )
        found += lacking
    if found:
        raise EnvironmentFault("this machine cannot run every kind of device", hint=apt_line(found) or "see above")
