"""How `deploy measure` and `deploy compare` tell what they found, in a terminal, as JSON and as a page."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.cli.on_device import Whole
    from pipeline.measuring.records import Comparison, Session
    from targets.records import Profile


def show(session: "Session") -> None:
    from pipeline.reporting.measuring import rows, summary

    click.echo(click.style(summary(session), bold=True))
    for title, text in rows(session, "A"):
        click.echo(f"  {title:<16} {text}")
    if session.duty_refused:
        click.echo(f"  {'duty-cycled':<16} not measured: {session.duty_refused}")
    show_profiles(session)
    show_trust(session)


def show_profiles(session: "Session") -> None:
    """Where the time of each measured model goes, and why a quantized one takes longer than the float one."""
    from pipeline.measuring.profile import explained

    for model, found in session.profiles.items():
        if model in session.models.values():
            show_profile(model, found)
    for sentence in explained(session.profiles):
        click.echo(f"  {sentence}")


def show_profile(model: str, found: "Profile") -> None:
    from pipeline.cli.fleet import print_table
    from pipeline.measuring.profile import kinds, reasons, timed, untold

    click.echo(
        f"  where the time of {model} goes, over {found.runs} runs:"
        if timed(found)
        else f"  the ops of {model}, without their times: {untold(found)}"
    )
    shown = kinds(found)
    total = sum(kind.us for kind in shown)
    lines = [
        (
            f"    {kind.op}",
            kind.dtype,
            kind.where,
            str(kind.count),
            f"{kind.us / 1000:.3f} ms" if total else "",
            f"{kind.us / total:.0%}" if total else "",
        )
        for kind in shown[:12]
    ]
    print_table(("    op", "type", "by", "count", "time", "share"), lines)
    for reason in reasons(found):
        click.echo(f"  {reason}")


def show_comparison(session: "Session", found: "Comparison") -> None:
    from pipeline.reporting.measuring import compared, rows, summary

    click.echo(click.style(summary(session), bold=True))
    wanted = (
        "warm, median", "warm, tail", "peak memory", "answers", "runtime", "conditions", "energy", "energy, gross",
        "energy, net", "meter", "no gate by it",
    )  # fmt: skip
    for label in ("A", "B"):
        click.echo(f"  {label}: {session.models[label]}")
        for title, text in rows(session, label):
            if title in wanted:
                click.echo(f"    {title:<14} {text}")
    for title, text in compared(session, found):
        click.echo(f"  {title:<16} {text}")
    sign = {"not-slower": ("✓", "green"), "slower": ("✗", "red"), "undecided": ("?", "yellow")}[found.verdict]
    show_profiles(session)
    words = "faster" if found.faster else found.verdict.replace("-", " ")
    click.echo(click.style(f"{sign[0]} {session.models['B']} is {words}", fg=sign[1]) + f": {found.reason}")
    show_trust(session)


def show_trust(session: "Session") -> None:
    from pipeline.reporting.measuring import doubts

    for what, remedy in doubts(session):
        click.echo(click.style(f"! {what}", fg="yellow") + f"\n    {remedy}")
    if session.trusted:
        click.echo(click.style("✓ nothing speaks against these numbers", fg="green"))
    else:
        click.echo(click.style("✗ not to be trusted as they are", fg="red"))


def show_sweep(sessions: "list[Session]") -> None:
    from pipeline.cli.fleet import print_table
    from pipeline.measuring.statistics import latency
    from pipeline.quantities import milliseconds

    found = [(session, latency(session.blocks)) for session in sessions]
    best = {
        target: min(own.median.value for s, own in found if s.target == target)
        for target in {s.target for s in sessions}
    }
    lines = []
    for session, own in found:
        measured = session.blocks[0].measurement
        cores = measured.conditions.get("cpus_allowed", "")
        lines.append(
            (
                session.target,
                str(measured.threads),
                cores if "," in cores else "all",
                milliseconds(own.median.value),
                f"±{own.median.half_width:.1%}",
                milliseconds(own.p90),
                " ".join(dict.fromkeys(finding.doubt for finding in session.findings)),
                "← best" if own.median.value == best[session.target] else "",
            )
        )
    print_table(("device", "threads", "cores", "median", "interval", "p90", "doubts", ""), lines)


def plain_session(session: "Session") -> dict[str, Any]:
    """A session for --json: its evidence, and what follows from it of energy and of the ops."""
    from pipeline import codec
    from pipeline.measuring.profile import explained, reasons
    from pipeline.quality.energy import energy_per_inference

    energies = {session.models[label]: energy_per_inference(measured) for label, measured in session.metered.items()}
    causes = {model: reasons(found) for model, found in session.profiles.items()}
    return {
        "energy": {model: codec.plain(found) for model, found in energies.items()},
        "causes": {"by_model": causes, "against_float": explained(session.profiles)},
        "session": codec.plain(session),
    }


def sessions_json(sessions: "list[Session]", wholes: "list[Whole]") -> str:
    from pipeline import codec
    from pipeline.measuring.statistics import latency

    plain = [
        {"latency": codec.plain(latency(session.of("A"))), "trusted": session.trusted, **plain_session(session)}
        for session in sessions
    ]
    for entry, session in zip(plain, sessions, strict=True):
        own = session.profiles.get(session.models["A"])
        entry["profile"] = codec.plain(own) if own else None
        entry["pipeline"] = next((whole.plain() for whole in wholes if whole.found.target == session.target), None)
    return json.dumps(plain)


def write_page(path: Path | None, sessions: "list[Session]") -> None:
    if path is None:
        return
    from pipeline.reporting.session_page import page

    path.write_text(page(sessions), encoding="utf-8")
    click.echo(f"page: {path}", err=True)
