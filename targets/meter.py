"""The seam for power meters: a window of time on the device becomes a power trace."""

from typing import Protocol

from targets.records import PowerTrace


class Meter(Protocol):
    """One power sensor. `scope` says what its reading includes, such as "5 V input of the board"."""

    name: str
    scope: str

    def start(self) -> None:
        """Begin the window; raises DeviceError when the sensor cannot be read."""

    def stop(self) -> PowerTrace:
        """End the window; samples carry their own time stamps, so a missed one shows."""
