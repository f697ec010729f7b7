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
    from targets.lab.state import LabDevice, LabState
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
            "faults": links[device.name]["faults"],
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
        click.echo(f"{cells} {_felt(row['power']):<14} {_wrong(row['faults'])}".rstrip())


def _wrong(faults: dict[str, Any]) -> str:
    from pipeline.rehearsal.schedule import fault_text

    return ", ".join(fault_text(fault, value) for fault, value in faults.items())


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
        if device.partition("=")[0] in FAULTS:
            raise UsageError("on which device?", hint=f"deploy lab fault DEVICE {device}, or `all` for every one")
        raise UsageError("what should go wrong?", hint=f"one of {', '.join(FAULTS)}")
    kind, value = parse_fault(fault)
    found = running_lab(name)
    chosen = list(found.devices) if device == "all" else [found.device(device)]
    able = [one for one in chosen if device != "all" or _can(one, kind)] or chosen
    for one in able:
        inflict(found, one.name, kind, value)
        click.echo(f"{one.name}: {fault}")
    if left := [one.name for one in chosen if one not in able]:
        click.echo(f"not for {', '.join(left)}: they cannot have it", err=True)


def _can(device: "LabDevice", fault: str) -> bool:
    from pipeline.errors import UsageError
    from targets.lab.faults import suiting

    try:
        suiting(device, fault)
    except UsageError:
        return False
    return True


@lab.command("list")
@json_option
def list_labs(as_json: bool) -> None:
    """List the labs of this machine, also those that a crash has left."""
    from pipeline.errors import EnvironmentFault
    from targets.lab.state import lab_names, load_lab

    rows = []
    for name in lab_names():
        try:
            found = load_lab(name)
            rows.append({"name": name, "devices": len(found.devices), "running": found.keeper.alive()})
        except EnvironmentFault:
            rows.append({"name": name, "devices": 0, "running": False})
    if as_json:
        click.echo(json.dumps(rows))
    for row in () if as_json else rows:
        running = "running" if row["running"] else f"ended: deploy lab down --name {row['name']}"
        click.echo(f"{row['name']:<24} {row['devices']:>4} devices  {running}")


@lab.command()
@_name_option
@click.option("--all", "every", is_flag=True, help="Every lab of this machine.")
def down(name: str, every: bool) -> None:
    """End a lab, or clear away what a crash has left of it."""
    from targets.lab.lab import down as end
    from targets.lab.state import lab_names

    for each in lab_names() if every else [name]:
        end(each)
        click.echo(f"lab {each} is gone", err=True)


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
        root = "run it with sudo" if any(one.missing.startswith("root") for one in found) else ""
        hint = "; ".join(filter(None, (apt_line(found), root))) or "see above"
        raise EnvironmentFault("this machine cannot run every kind of device", hint=hint)
