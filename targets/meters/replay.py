"""A trace that was stored before, to see what the rules make of it. It is no measurement."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from targets.errors import InputError
from targets.records import Absent, Counter, PowerTrace, Window


class Replay:
    """The file holds a `PowerTrace` as JSON, as a stored measurement has it under `energy`."""

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser()
        self._trace: PowerTrace | None = None

    def begin(self) -> None:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self._trace = _decoded(found)
        except OSError as fault:
            raise InputError(f"{self.path} cannot be read: {fault.strerror}", hint="a stored power trace") from fault
        except (ValueError, TypeError, KeyError) as fault:
            raise InputError(f"{self.path} is no stored power trace ({fault})", hint="JSON of a PowerTrace") from fault

    def trace(self, windows: Sequence[Window]) -> PowerTrace | Absent:
        """The stored trace with its own windows: those of this run are of another time."""
        return self._trace or Absent(reason=f"{self.path} was not read")


def _decoded(found: Mapping[str, Any]) -> PowerTrace:
    known = {field.name for field in fields(PowerTrace)}
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in found.items() if key in known
    }
    given["counters"] = tuple(
        Counter(**{**counter, "readings_j": tuple(counter["readings_j"])}) for counter in found.get("counters", ())
    )
    given["windows"] = tuple(Window(**window) for window in found.get("windows", ()))
    return PowerTrace(**{**given, "kind": "replayed"})
