"""What all benchmarks share: timing commands in turns, and one row per claim."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
_LAST_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim. `value`, `peer` and `bar` share `unit`; `ok` is None when nothing could be measured, and says why.

    `peer` is what the value is compared with, measured in the same run; None when the claim is absolute.
    """

    name: str
    value: float | None
    unit: str
    peer: float | None
    bar: float | None
    ok: bool | None
    reason: str = ""


def at_most(name: str, value: float, unit: str, bar: float, peer: float | None = None) -> Row:
    """A claim that holds while the value is not above the bar."""
    return Row(name=name, value=value, unit=unit, peer=peer, bar=bar, ok=value <= bar)


def at_least(name: str, value: float, unit: str, bar: float, peer: float | None = None) -> Row:
    """A claim that holds while the value is not below the bar."""
    return Row(name=name, value=value, unit=unit, peer=peer, bar=bar, ok=value >= bar)


def absent(name: str, unit: str, reason: str) -> Row:
    """A claim about something that cannot be had here."""
    return Row(name=name, value=None, unit=unit, peer=None, bar=None, ok=None, reason=reason)


def deploy() -> list[str]:
    """The command `deploy` of this interpreter's environment, as a user starts it."""
    script = shutil.which("deploy", path=str(Path(sys.executable).parent))
    return [script] if script else [sys.executable, "-m", "pipeline.cli.main"]


def wall_s(command: Sequence[str], *, cwd: Path = ROOT, codes: Iterable[int] = (0,), **environ: str) -> float:
    """Seconds from starting the process to its end.

    Raises:
        RuntimeError: it ended with a code that is none of `codes`; shows the last it said.
    """
    # TensorFlow writes more than a pipe holds: a pipe that nobody reads would stop the clock's subject.
    started = time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, env={**os.environ, **environ}, check=False)
    elapsed = time.perf_counter() - started
    if done.returncode not in set(codes):
        last = "\n".join(done.stderr.decode(errors="replace").splitlines()[-_LAST_LINES:])
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{last}")
    return elapsed


def in_turns(sides: Mapping[str, Callable[[], float]], pairs: int) -> dict[str, list[float]]:
    """Measure every side `pairs` times, in turns that change direction (ABBA), so that a drift hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(pairs):
        for name in sides if number % 2 == 0 else reversed(sides):
            found[name].append(sides[name]())
    return found


def main(rows: Callable[[int], Iterable[Row]], *, doc: str | None, pairs: int) -> None:
    """The command line of one benchmark; `rows` gets how many times each side is to be measured."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--pairs", type=int, default=pairs, help="how often each side is measured (default: %(default)s)"
    )
    asked = parser.parse_args()
    for row in rows(asked.pairs):
        print(json.dumps(_object(row), ensure_ascii=False) if asked.json else _line(row), flush=True)


def middle(samples: Sequence[float]) -> float:
    """The median; the spread goes to standard error, because two numbers without it cannot be compared."""
    print(f"  {min(samples):.4g} … {median(samples):.4g} … {max(samples):.4g}, n={len(samples)}", file=sys.stderr)
    return median(samples)


def _object(row: Row) -> dict[str, object]:
    shown = asdict(row)
    if not row.reason:
        del shown["reason"]
    return shown


def _line(row: Row) -> str:
    if row.value is None:
        return f"–    {row.name}: absent: {row.reason}"
    mark = {True: "ok  ", False: "FAIL", None: "–   "}[row.ok]
    bar = "" if row.bar is None else f", bar {_quantity(row.bar, row.unit)}"
    change = f" ({row.value / row.peer - 1:+.1%})" if row.peer else ""
    peer = "" if row.peer is None else f", peer {_quantity(row.peer, row.unit)}{change}"
    return f"{mark} {row.name}: {_quantity(row.value, row.unit)}{bar}{peer}"


def _quantity(value: float, unit: str) -> str:
    return f"{value:.4g} {unit}".rstrip()
