"""Plans, rollouts and the state of a fleet in a terminal and as JSON: what is, and why."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from pipeline import codec
from pipeline.quantities import size
from pipeline.reporting.printable import printable
from pipeline.rollout.records import Member, Result, RolloutPlan
from pipeline.rollout.status import Status
from targets.records import Absent

# More rows than one looks at: the rest is counted, and --json has all of them.
MAX_ROWS = 40
_STYLES = {
    "confirmed": "green",
    "unchanged": "green",
    "current": "green",
    "waiting": "dim",
    "pending": "yellow",
    "behind": "yellow",
    "unconfirmed": "yellow",
    "in-rollout": "cyan",
    "pinned": "cyan",
    "unknown": "dim",
    "failed": "red",
    "reverted": "red",
    "refused": "red",
    "lost": "bold red",
}


def plan_json(plan: RolloutPlan) -> str:
    return codec.canonical(codec.plain(plan)).decode()


def results_json(results: Sequence[Result]) -> str:
    return codec.canonical([codec.plain(result) for result in results]).decode()


def result_json(result: Result) -> str:
    return codec.canonical(codec.plain(result)).decode()


def status_json(rows: Sequence[Status]) -> str:
    return codec.canonical([codec.plain(row) for row in rows]).decode()


class PlanView:
    """A rich renderable of what would be done."""

    def __init__(self, plan: RolloutPlan, names: Mapping[str, str]) -> None:
        self._plan, self._names = plan, names

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plan = self._plan
        wave_of = {name: number for number, wave in enumerate(plan.waves, 1) for name in wave}
        table = _table("device", "class", "has", "wave", "steps", "to send", "about")
        for one in plan.devices[:MAX_ROWS]:
            wave = str(wave_of[one.device]) if one.device in wave_of else ""
            steps = Text(" → ".join(one.steps)) if one.steps else _told(one.state, one.reason, one.hint)
            if one.note:
                steps.append(f"\n{one.note}", style="dim")
            about = "" if isinstance(one.duration_s, Absent) else duration(one.duration_s)
            to_send = size(one.bytes_to_send) if one.bytes_to_send else ""
            table.add_row(one.device, one.device_class, short(one.installed, self._names), wave, steps, to_send, about)
        yield table
        yield from _rest(len(plan.devices))
        counts = ", ".join(str(len(wave)) for wave in plan.waves) or "nothing to do"
        yield Text.assemble(
            (f"{plan.name} {plan.sequence}", "bold"),
            f" ({plan.release[:12]}): waves of {counts}; at most {size(plan.bytes_to_send)} to send"
            + (f" ({size(plan.golden_bytes)} of it samples and answers)" if plan.golden_bytes else "")
            + (f", about {duration(plan.duration_s)}: {_BASIS[plan.basis]}" if plan.duration_s else ""),
        )


_BASIS = {
    "measured": "as these devices took before",
    "alike": "as devices of the same class took before",
    "guess": "a guess, for not all steps were done before on such devices",
}


class ResultView:
    """A rich renderable of what a rollout came to."""

    def __init__(self, result: Result, names: Mapping[str, str]) -> None:
        self._result, self._names = result, names

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        result = self._result
        good = {"confirmed", "unchanged"} | ({"reverted"} if result.kind == "rollback" else set())
        told = [member for member in result.members if member.state not in good]
        if told:
            table = _table("device", "class", "wave", "state", "why")
            for member in told[:MAX_ROWS]:
                wave = str(member.wave) if member.wave else ""
                state = Text(member.state, style=_STYLES.get(member.state, ""))
                table.add_row(member.device, member.device_class, wave, state, _reason(member.reason, member.hint))
            yield table
            yield from _rest(len(told))
        for one in result.differences:
            yield Text(
                f"! {one.device}: the journal had {short(one.journal, self._names)}, "
                f"the device has {short(one.found, self._names)}, which counts",
                style="yellow",
            )
        yield verdict_line(result, self._names)


class StatusView:
    """A rich renderable of a fleet."""

    def __init__(self, rows: Sequence[Status], names: Mapping[str, str]) -> None:
        self._rows, self._names = rows, names

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = _table("device", "class", "has", "is to have", "state", "why", "since")
        for row in self._rows:
            installed = "?" if isinstance(row.installed, Absent) else short(row.installed, self._names)
            why = _reason(row.reason, row.hint)
            if row.differs:
                why.append(f"\nthe journal had {short(row.differs, self._names)}", style="yellow")
            if row.note:
                why.append(f"\n{row.note}", style="dim")
            since = "" if isinstance(row.since_s, Absent) else ago(time.time() - row.since_s)
            state = Text(row.state, style=_STYLES.get(row.state, ""))
            desired = short(row.desired, self._names)
            table.add_row(row.device, row.device_class, installed, desired, state, why, since)
        yield table


def verdict_line(result: Result, names: Mapping[str, str]) -> Text:
    """The rollout in one line."""
    counts = Counter(member.state for member in result.members)
    parts = ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "no device"
    what = names.get(result.release, result.release[:12]) if result.release else "back to the release before"
    if result.state == "stopped":
        return Text.assemble(("✗ ", "bold red"), (f"{what}: stopped", "bold"), f", {result.reason}; {parts}")
    well = set(counts) <= {"confirmed", "unchanged", "pinned"} | ({"reverted"} if result.kind == "rollback" else set())
    sign, style = ("✓ ", "bold green") if well else ("? ", "bold yellow")
    return Text.assemble((sign, style), (what, "bold"), f": {parts}", (f"  ({result.rollout})", "dim"))


def member_line(member: Member) -> str:
    """One device in one line, with what to do about it."""
    why = f": {member.reason}" if member.reason else ""
    hint = f" ({member.hint})" if member.hint and member.reason else ""
    return printable(f"{member.device}: {member.state}{why}{hint}")


def short(release: str, names: Mapping[str, str]) -> str:
    """A release as one reads it: its name and number where they are known."""
    if not release:
        return "—"
    return names.get(release, release[:12])


def duration(value_s: float) -> str:
    if value_s < 1:
        return "1 s"
    if value_s < 99.5:
        return f"{value_s:.0f} s"
    return f"{value_s / 60:.0f} min" if value_s < 90 * 60 else f"{value_s / 3600:.1f} h"


def ago(value_s: float) -> str:
    for limit_s, divisor, unit in ((60, 1, "s"), (3600, 60, "min"), (48 * 3600, 3600, "h")):
        if value_s < limit_s:
            return f"{max(0, value_s) / divisor:.0f} {unit}"
    return f"{value_s / 86400:.0f} d"


def _told(state: str, reason: str, hint: str) -> Text:
    return Text.assemble((state, _STYLES.get(state, "")), ": " if reason else "", _reason(reason, hint))


def _reason(reason: str, hint: str) -> Text:
    text = Text(printable(reason))
    if hint and reason:
        text.append(f"\n{printable(hint)}", style="dim")
    return text


def _rest(count: int) -> RenderResult:
    if count > MAX_ROWS:
        yield Text(f"… and {count - MAX_ROWS} more; --json has all of them", style="dim")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
