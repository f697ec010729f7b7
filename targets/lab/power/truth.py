"""The ground truth of a device: what it really drew, as JSON lines on the machine, where the device cannot see them."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from targets.lab.power.model import State

# At 10 lines of 150 bytes a second, the two files that are kept hold between 90 minutes and three hours.
MAX_BYTES = 8_000_000
_LAST_BYTES = 1000  # more than one line takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One line of the log."""

    t_monotonic_ns: int
    cpu_s: float
    energy_j: float
    power_w: float
    temperature_c: float
    throttled: bool

    @classmethod
    def of(cls, state: State) -> Self:
        return cls(
            t_monotonic_ns=round(state.now_s * 1e9),
            cpu_s=round(state.cpu_s, 9),
            energy_j=round(state.energy_j, 9),
            power_w=round(state.power_w, 6),
            temperature_c=round(state.temperature_c, 6),
            throttled=state.throttled,
        )


class TruthLog:
    """Appends; when full, the file becomes PATH.1, whose predecessor is forgotten."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        self.path, self.max_bytes = path, max_bytes
        self._open()

    def _open(self) -> None:
        self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self.bytes = os.fstat(self.file).st_size

    def append(self, truth: Truth) -> None:
        """One write for one line, so that no reader sees half of it."""
        line = json.dumps({name: getattr(truth, name) for name in Truth.__slots__}).encode() + b"\n"
        if self.bytes + len(line) > self.max_bytes:
            os.close(self.file)
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._open()
        self.bytes += os.write(self.file, line)


def read_truth(path: Path) -> Iterator[Truth]:
    """The log from its oldest line on; a device's reboot begins energy_j at 0 again."""
    for part in (path.with_name(path.name + ".1"), path):
        if part.exists():
            for line in part.read_text(encoding="ascii").splitlines():
                yield Truth(**json.loads(line))


def last_truth(path: Path) -> Truth | None:
    """The newest line; None when there is none yet, or no log."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST_BYTES))
            lines = log.read().splitlines()
    except FileNotFoundError:
        return None
    return Truth(**json.loads(lines[-1])) if lines else None
