"""A rollout while it goes on: a live table on a terminal, plain lines elsewhere; both on standard error."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.reporting.rollout import duration, member_line
from pipeline.rollout.engine import Watching
from pipeline.rollout.records import BAD, Member, RolloutPlan, Wave

_QUIET = ("confirmed", "unchanged", "waiting", "active")  # states that nobody has to be told of one by one
_ROWS = 16  # devices shown at once: with 100 of them one looks at the counts


@contextmanager
def watching() -> Iterator[Watching]:
    """The display that suits standard error."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    console = Console(stderr=True)
    table = LiveTable(console)
    with Live(console=console, get_renderable=table.render, refresh_per_second=5, transient=True):
        yield table


class Lines:
    """What came of each wave, and every device that is not well: for logs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def planned(self, plan: RolloutPlan) -> None:
        waves = ", ".join(str(len(wave)) for wave in plan.waves) or "none"
        self._say(f"{plan.name} {plan.sequence}: {_devices(len(plan.devices))}, waves of {waves}")

    def changed(self, member: Member, step: str) -> None:
        if not step and member.state not in _QUIET:
            self._say(member_line(member))

    def wave(self, number: int, devices: Sequence[str]) -> None:
        self._say(f"wave {number}: {', '.join(devices[:4])}" + (f" and {len(devices) - 4} more" * (len(devices) > 4)))

    def judged(self, wave: Wave) -> None:
        self._say(judged_line(wave))

    def noted(self, text: str) -> None:
        self._say(text)

    def _say(self, text: str) -> None:
        with self._lock:
            print(text, file=sys.stderr, flush=True)


class LiveTable:
    """The devices that are being worked on, and how many are in which state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._states: dict[str, str] = {}
        self._steps: dict[str, tuple[str, float]] = {}
        self._title = ""

    def planned(self, plan: RolloutPlan) -> None:
        with self._lock:
            self._states = {one.device: one.state for one in plan.devices}

    def changed(self, member: Member, step: str) -> None:
        with self._lock:
            self._states[member.device] = member.state
            if step:
                self._steps[member.device] = (step, time.monotonic())
            elif member.state not in ("active", "reverting"):
                self._steps.pop(member.device, None)
        if not step and member.state not in _QUIET:
            style = "red" if member.state in BAD else "yellow"
            self._console.print(Text(member_line(member), style=style))

    def wave(self, number: int, devices: Sequence[str]) -> None:
        self._title = f"wave {number}: {_devices(len(devices))}"

    def judged(self, wave: Wave) -> None:
        self._console.print(Text(judged_line(wave), style="" if wave.verdict.passed else "bold red"))

    def noted(self, text: str) -> None:
        self._title = text
        self._console.print(Text(text, style="dim"))

    def render(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        with self._lock:
            counts = Counter(self._states.values())
            steps = sorted(self._steps.items(), key=lambda item: item[1][1])
        told = ", ".join(f"{count} {state}" for state, count in counts.most_common())
        table.add_row(Text(self._title, style="bold"), "", Text(told, style="dim"))
        now = time.monotonic()
        for name, (step, since) in steps[:_ROWS]:
            table.add_row(f"  {name}", step, duration(now - since))
        if len(steps) > _ROWS:
            table.add_row(Text(f"  … {len(steps) - _ROWS} more", style="dim"), "", "")
        return table


def _devices(count: int) -> str:
    return f"{count} device" + "s" * (count != 1)


def judged_line(wave: Wave) -> str:
    """A wave's verdict in one line."""
    notes = "; ".join(wave.verdict.notes)
    if wave.verdict.passed:
        return f"wave {wave.number}: passed" + (f" ({notes})" if notes else "")
    return f"wave {wave.number}: stopped, {'; '.join(wave.verdict.reasons)}" + (f" ({notes})" if notes else "")
