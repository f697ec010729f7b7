"""`deploy targets list | probe | trust | trust-key | provision [SELECTOR…]`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import config_option, json_option, state_folder, state_option
from pipeline.cli.trust_key import trust_key

if TYPE_CHECKING:
    from targets.errors import DeployError
    from targets.records import Facts, PowerSource, TargetSpec
    from targets.transports.ssh_trust import Offered

_SELECTORS = "[SELECTOR]..."


@click.group()
def targets() -> None:
    """List the devices of deploy.yaml, look at them, or trust their host keys.

    A SELECTOR is a name, a group, a glob, or an expression such as 'site=lyon & soc=bcm2712'.
    """


targets.add_command(trust_key)


@targets.command("list")
@config_option
@state_option
@json_option
@click.argument("selectors", nargs=-1, metavar=_SELECTORS)
def list_targets(config: Path, state: Path | None, as_json: bool, selectors: tuple[str, ...]) -> None:
    """List the devices without connecting to any."""
    from pipeline.cli.fleet import chosen, print_table

    specs = chosen(config, state, selectors)
    if as_json:
        click.echo(json.dumps([asdict(spec) for spec in specs]))
        return
    print_table(
        ("device", "over", "where", "class", "groups", "labels"),
        (
            (
                spec.name,
                spec.transport,
                _place(spec),
                spec.device_class,
                " ".join(spec.groups),
                " ".join(f"{key}={value}" for key, value in spec.labels.items()),
            )
            for spec in specs
        ),
    )


@targets.command()
@config_option
@state_option
@json_option
@click.argument("selectors", nargs=-1, metavar=_SELECTORS)
def probe(config: Path, state: Path | None, as_json: bool, selectors: tuple[str, ...]) -> None:
    """Connect to devices and print what they are: CPU, system, runtimes, governor, space, meters.

    What is found is kept, for selecting (`arch=aarch64`) and planning. Exit code 3 when a device did not answer.
    """
    from pipeline.cli.fleet import chosen, failures, on_all, outcome_json, print_failures, print_table
    from pipeline.inventory.sheets import keep_facts
    from targets.device import connect

    folder = state_folder(config, state)

    def look(spec: "TargetSpec") -> "Facts":
        with connect(spec, state=folder) as device:
            facts = device.facts()
        keep_facts(folder, facts)
        return facts

    specs = chosen(config, state, selectors)
    if len(specs) == 1:
        facts = look(specs[0])
        click.echo(json.dumps(asdict(facts)) if as_json else _sheet(facts))
        return
    outcomes = list(on_all(specs, look))
    failed = failures(outcomes)
    if as_json:
        click.echo(json.dumps([outcome_json(spec, found) for spec, found in outcomes]))
    else:
        print_table(("device", "cpu", "system", "python", "runtimes", "free", "state"), map(_row, outcomes))
        print_failures(failed)
    raise click.exceptions.Exit(3 if failed else 0)


@targets.command()
@config_option
@state_option
@click.option("--fingerprint", metavar="SHA256:…", help="Trust this key and no other, without asking; of one device.")
@json_option
@click.argument("selectors", nargs=-1, required=True, metavar="SELECTOR...")
def trust(config: Path, state: Path | None, fingerprint: str | None, as_json: bool, selectors: tuple[str, ...]) -> None:
    """Show the host keys that devices offer, ask, and add them to known_hosts.

    Compare each fingerprint with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows on the device's own
    console. A key that has changed is never replaced here.
    """
    from pipeline.cli.fleet import chosen, on_all, outcome_json, print_failures
    from pipeline.errors import UsageError
    from targets.errors import DeployError, HostKeyRejected
    from targets.transports.ssh_trust import offered_key
    from targets.transports.ssh_trust import trust as keep

    specs = chosen(config, state, selectors)
    if fingerprint and len(specs) != 1:
        raise UsageError(f"--fingerprint is of one device, {len(specs)} are chosen", hint="name one device")
    outcomes = list(on_all(specs, offered_key))
    failed: list[tuple[TargetSpec, DeployError]] = []
    done: list[dict[str, Any]] = []
    for spec, found in outcomes:
        try:
            if isinstance(found, DeployError):
                raise found
            if fingerprint and found.fingerprint != fingerprint:
                raise HostKeyRejected(
                    f"{spec.name}: {found.known_as} offers {found.kind} {found.fingerprint}, not {fingerprint}",
                    hint="somebody may be posing as the device, or the fingerprint is of another of its keys",
                )
            agreed = found.state != "new" or bool(fingerprint) or _asked(found, as_json)
            if agreed:
                keep(found)
            done.append({"name": spec.name, "trusted": agreed, **_key(found)})
            if not as_json:
                said = {"known": "was trusted already", "new": f"added to {found.file}" if agreed else "not trusted"}
                click.echo(f"{spec.name}: {found.kind} {found.fingerprint}: {said[found.state]}")
        except DeployError as error:
            failed.append((spec, error))
    if as_json:
        click.echo(json.dumps([*done, *(outcome_json(spec, error) for spec, error in failed)]))
    else:
        print_failures(error for _, error in failed)
    raise click.exceptions.Exit(3 if failed else 0)


@targets.command()
@config_option
@state_option
@click.option("--package", "packages", multiple=True, metavar="NAME[==VERSION]", help="Instead of the runtimes.")
@json_option
@click.argument("selectors", nargs=-1, metavar=_SELECTORS)
def provision(
    config: Path,
    state: Path | None,
    packages: tuple[str, ...],
    as_json: bool,
    selectors: tuple[str, ...],
) -> None:
    """Give devices a Python environment with the runtimes, without any network of theirs.

    Wheels are resolved and fetched here, for each device's CPU, Python and C library, pushed, unpacked, and tried by
    importing. The environment is used from then on unless the target names a `python:`. Doing it again costs nothing.
    """
    from pipeline.cli.fleet import chosen, failures, on_all, outcome_json, print_failures, print_table
    from pipeline.inventory.sheets import keep_facts
    from pipeline.quantities import size
    from targets.device import connect
    from targets.provision import Provisioned
    from targets.provision import provision as provide
    from targets.wheels import lock

    folder = state_folder(config, state)

    def give(spec: "TargetSpec") -> Provisioned:
        with connect(spec, state=folder) as device:
            facts = device.facts()
            done = provide(device, facts, lock(facts, packages))
        with connect(spec, state=folder) as device:  # now with the environment
            keep_facts(folder, device.facts())
        return done

    outcomes = list(on_all(chosen(config, state, selectors), give))
    if as_json:
        click.echo(json.dumps([outcome_json(spec, found) for spec, found in outcomes]))
    else:
        given = [found for _, found in outcomes if isinstance(found, Provisioned)]
        rows = [
            (
                found.target,
                "made" if found.made else "was there",
                size(found.sent_bytes) if found.sent_bytes else "nothing",
                " ".join(f"{name} {version}" for name, version in found.runtimes.items()),
                found.python,
            )
            for found in given
        ]
        if rows:
            print_table(("device", "environment", "sent", "runtimes", "python"), rows)
        for spec, found in outcomes:
            if isinstance(found, Provisioned) and spec.python:
                click.echo(f"{spec.name}: not used as long as its target says `python: {spec.python}`", err=True)
        for note in dict.fromkeys(note for found in given for note in found.given_up):
            click.echo(f"not to be had: {note}", err=True)
        print_failures(failures(outcomes))
    raise click.exceptions.Exit(3 if failures(outcomes) else 0)


def _asked(found: "Offered", as_json: bool) -> bool:
    click.echo(f"{found.name}: {found.known_as} offers {found.kind} {found.fingerprint}", err=as_json)
    return click.confirm("Does the device's own console show the same?", default=False, err=as_json)


def _key(found: "Offered") -> dict[str, Any]:
    return {"host": found.known_as, "kind": found.kind, "fingerprint": found.fingerprint, "was": found.state}


def _place(spec: "TargetSpec") -> str:
    where = {"local": "this machine", "adb": spec.serial or spec.host or "whichever is attached"}
    place = where.get(spec.transport, spec.host) + (f":{spec.port}" if spec.port else "")
    return f"{spec.user}@{place}" if spec.user else place


def _row(outcome: "tuple[TargetSpec, Facts | DeployError]") -> tuple[str, ...]:
    from pipeline.quantities import size
    from targets.errors import DeployError

    spec, facts = outcome
    if isinstance(facts, DeployError):
        return (spec.name, "", "", "", "", "", facts.code)
    runtimes = " ".join(f"{name} {version}" for name, version in facts.runtimes.items()) or "none"
    state = "emulated" if facts.emulated else "ok"
    cpu = f"{facts.cpu_count}x {facts.arch}"
    return (spec.name, cpu, facts.os, facts.python, runtimes, size(facts.free_disk_bytes), state)


def _sheet(facts: "Facts") -> str:
    rows = [*_lines(asdict(facts)), *_meters(facts.power_sources)]
    return "\n".join(f"{key:<18} {text}" for key, text in rows)


def _meters(sources: "tuple[PowerSource, ...]") -> list[tuple[str, str]]:
    """Each power meter with what it includes and how finely it sees; the one that is used by itself comes first."""
    from pipeline.quantities import number

    rows = []
    for source in sources:
        parts = [source.scope, f"{number(1 / source.interval_s, 2)} readings a second"]
        if source.resolution_w:
            parts.append(f"steps of {number(source.resolution_w * 1e3, 2)} mW")
        parts.append(f"± {number(source.error_share * 100, 2)} %")
        if source.kind == "modelled":
            parts.append("an estimate: only when asked for, and never for a budget")
        if source.refused:
            parts.append(f"not now: {source.refused}")
        rows.append((f"meter {source.meter}", "; ".join(parts)))
    return rows


def _lines(facts: dict[str, object]) -> list[tuple[str, str]]:
    from pipeline.quantities import size

    rows = []
    for key, value in facts.items():
        if key == "power_sources" or (key == "meters" and value):
            continue  # they get a line each
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
