"""The seam for power meters: what a device can be read for its power, and what the readings mean.

A device meter knows the texts of its sensor, nothing of how they come here: the agent or a shell reads the files that
it names, on the device, while the benchmark runs there. A log is written by something else altogether.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from targets.records import Absent, PowerSource, PowerTrace, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What was read on the device: for each time stamp the text of every file of the source, or of its command."""

    time_ns: tuple[int, ...]
    values: tuple[tuple[str, ...], ...]


class DeviceMeter(Protocol):
    """One kind of power sensor; pure."""

    def sources(self, sensors: Mapping[str, str]) -> Sequence[PowerSource]:
        """The sensors of this kind, given what every file of `targets.agent.edge.power.SENSOR_FILES` says now.

        A file that may not be read is there with an empty text; a command's answer is under `command:NAME`.
        """

    def trace(self, source: PowerSource, readings: Readings) -> PowerTrace | Absent:
        """What the readings of a source mean, without windows; a reading that is none is left out, never repaired."""


class LogMeter(Protocol):
    """A power trace that comes from elsewhere than the device; constructed with the path of a file on this machine."""

    def __init__(self, path: str) -> None: ...

    def begin(self) -> None:
        """The benchmark is about to begin. Raises InputError when the file cannot be read."""

    def trace(self, windows: Sequence[Window]) -> PowerTrace | Absent:
        """The trace by the clock of these windows of the benchmark, and with them."""
