"""The log of an external meter on this machine, in CSV with a header, which grows while the benchmark runs.

Columns are found by their names, units in the name or in parentheses: a time (`time_s`, `timestamp`, `Time (ms)`;
numbers, or ISO 8601), and `power`, or `voltage` and `current`. The log's clock is nobody's that we know: the trace is
shifted to where the steps of its power fit those of the load, which the windows tell.
"""

import csv
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from targets.errors import InputError
from targets.records import Absent, PowerTrace, Window

Floats = NDArray[np.float64]

_UNITS: Mapping[str, float] = {
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
    "w": 1.0,
    "mw": 1e-3,
    "uw": 1e-6,
    "v": 1.0,
    "mv": 1e-3,
    "uv": 1e-6,
    "a": 1.0,
    "ma": 1e-3,
    "ua": 1e-6,
}
_COLUMNS = {
    "time": r"time(?:stamp)?|t|date",
    "power": r"power|p",
    "voltage": r"voltage|volts?|u",
    "current": r"current|i",
}
_HINT = "a header such as time_s,power_w or time_ms,voltage_v,current_a, and one row for each sample"
_LATE_S = 5.0  # that a logger may keep rows to itself after the run
_FINE_S = 1e-3  # of the alignment
_CLEAR = 5.0  # the step of the load must be so many times what its power varies by without one


class CsvLog:
    """Rows that were written after `begin` are the run's; what was there before belongs to somebody else."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser()
        self._start = 0
        self._columns: dict[str, tuple[int, float]] = {}

    def begin(self) -> None:
        try:
            with self.path.open(encoding="utf-8", errors="replace") as file:
                header = file.readline()
            self._start = max(self.path.stat().st_size, len(header.encode()))
        except OSError as fault:
            raise InputError(f"the meter's log {self.path} cannot be read: {fault.strerror}", hint=_HINT) from fault
        self._columns = columns(header)
        if not {"time"} < self._columns.keys():
            raise InputError(f"{self.path} has no columns of time and power: {header.strip()!r}", hint=_HINT)

    def trace(self, windows: Sequence[Window], late_s: float = _LATE_S) -> PowerTrace | Absent:
        wanted_s = (windows[-1].end_ns - windows[0].start_ns) * 1e-9
        end = time.monotonic() + late_s
        while True:
            time_s, power_w = self._rows()
            if len(time_s) >= 2 and time_s[-1] - time_s[0] >= wanted_s:
                break
            if time.monotonic() > end:
                span_s = time_s[-1] - time_s[0] if len(time_s) else 0.0
                reason = f"{self.path} grew by {span_s:.0f} s of samples while the run took {wanted_s:.0f} s"
                return Absent(reason=reason)
            time.sleep(0.2)
        offset_s = align(time_s, power_w, windows)
        if offset_s is None:
            return Absent(reason=f"no step of the load is seen in {self.path}: is the meter at this device?")
        return PowerTrace(
            meter="csv",
            scope=f"external meter ({self.path.name})",
            time_ns=tuple(round((at - offset_s) * 1e9) for at in time_s),
            power_w=tuple(float(watts) for watts in power_w),
            windows=tuple(windows),
            interval_s=float(np.median(np.diff(time_s))),
            notes=(f"clock shifted by {-offset_s:.3f} s to the steps of the load",),
        )

    def _rows(self) -> tuple[Floats, Floats]:
        """Times in s and watts of the complete rows since `begin`, in order; what is no number is left out."""
        with self.path.open(encoding="utf-8", errors="replace") as file:
            file.seek(self._start)
            text = file.read()
        rows = []
        for row in csv.reader(text[: text.rfind("\n") + 1].splitlines()):
            try:
                rows.append((self._time_s(row), self._power_w(row)))
            except (ValueError, IndexError):
                continue
        found = np.array(sorted(set(rows)), dtype=np.float64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    def _time_s(self, row: Sequence[str]) -> float:
        column, scale = self._columns["time"]
        try:
            return float(row[column]) * scale
        except ValueError:
            return datetime.fromisoformat(row[column].strip()).timestamp()

    def _power_w(self, row: Sequence[str]) -> float:
        def value(name: str) -> float:
            column, scale = self._columns[name]
            return float(row[column]) * scale

        watts = value("power") if "power" in self._columns else value("voltage") * value("current")
        if not np.isfinite(watts):
            raise ValueError("not finite")
        return watts


def columns(header: str) -> dict[str, tuple[int, float]]:
    """Quantity -> column and unit, of a header line. Power, or both voltage and current, else neither."""
    found: dict[str, tuple[int, float]] = {}
    for number, title in enumerate(next(csv.reader([header]), [])):
        words = [word for word in re.split(r"[^\wµ]+|_", title.strip().lower()) if word]
        for quantity, names in _COLUMNS.items():
            if quantity not in found and words and any(re.fullmatch(names, word) for word in words):
                units = [word for word in words[::-1] if word in _UNITS and not re.fullmatch(names, word)]
                found[quantity] = number, _UNITS[units[0]] if units else 1.0
                break
    if "power" not in found and not {"voltage", "current"} <= found.keys():
        return {"time": found["time"]} if "time" in found else {}
    return found


def align(time_s: Floats, power_w: Floats, windows: Sequence[Window]) -> float | None:
    """The log's clock minus the windows', where the load's steps fit best; None where no step is to be seen.

    The load changes in the middle between two windows, because each has the same time to settle on either side.
    """
    edges = [windows[0].start_ns, *((a.end_ns + b.start_ns) / 2 for a, b in pairwise(windows))]
    edges_s = np.array([*edges, windows[-1].end_ns]) * 1e-9
    busy = np.array([window.kind == "busy" for window in windows])
    energy_j = np.concatenate([[0.0], np.cumsum(np.diff(time_s) * (power_w[1:] + power_w[:-1]) / 2)])

    def levels(offset_s: float) -> Floats:
        return np.asarray(np.diff(np.interp(edges_s + offset_s, time_s, energy_j)) / np.diff(edges_s))

    def step_w(offset_s: float) -> float:
        found = levels(offset_s)
        return float(found[busy].mean() - found[~busy].mean())

    least, most = time_s[0] - edges_s[0], time_s[-1] - edges_s[-1]
    coarse_s = max(_FINE_S, float(np.diff(edges_s).min()) / 10)
    best = max(np.arange(least, most + coarse_s, coarse_s), key=step_w)
    fine = np.arange(max(least, best - coarse_s), min(most, best + coarse_s) + _FINE_S, _FINE_S)
    best = float(max(fine, key=step_w)) if len(fine) else float(best)
    found = levels(best)
    apart = float(found[busy].mean() - found[~busy].mean())
    spread = max(float(found[busy].std()), float(found[~busy].std()))
    return best if apart > _CLEAR * spread and apart > 0 else None
