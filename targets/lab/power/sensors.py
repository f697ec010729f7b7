"""What sensors a device has, as data of its profile, and where in its /sys they are.

A profile lists them as tables, `{ kind = "ina226", bus_v = 5.1 }`: the kind, and fields of the class in `KINDS`.
A new kind costs one class with the members of `Sensor`, and one row in `KINDS`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol, Self

from targets.errors import UsageError
from targets.lab.power.battery import Battery
from targets.lab.power.board import Accounting, Clock, CpuThermal, Firmware, ThermalZone
from targets.lab.power.ina import Ina226, Ina3221
from targets.lab.power.model import PowerParameters, State
from targets.lab.power.odpm import Odpm
from targets.lab.power.pmic import Pmic
from targets.lab.power.rapl import Rapl
from targets.lab.profiles import cores_of

# Where the sensors themselves are in the device's /sys; all that programs know are links to here, as in a real one.
MOUNT = PurePosixPath("devices/platform/lab-power")


class Sensor(Protocol):
    """A folder of files that a driver shows; frozen, its fields are its settings."""

    @property
    def folder(self) -> str:
        """Name of the folder that holds its files."""

    @property
    def interval_s(self) -> float:
        """Conversion time over which its power is averaged; 0 for what is no average."""

    @property
    def root_only(self) -> frozenset[str]:
        """Files that an ordinary user may not read."""

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        """File name -> what it says now, without the newline at its end; the names never change."""

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        """Paths below /sys that lead to its folder or to a file in it, each with where that is below `MOUNT`.

        `hwmon` is the name of the chip, if the sensor is one.
        """


KINDS: Mapping[str, type[Sensor]] = {
    "ina226": Ina226,
    "ina3221": Ina3221,
    "pmic": Pmic,
    "rapl": Rapl,
    "battery": Battery,
    "odpm": Odpm,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorSet:
    """All sensors of one device."""

    parameters: PowerParameters
    sensors: tuple[Sensor, ...]

    @classmethod
    def of(cls, board: Mapping[str, Any]) -> Self:
        """From the `power` and `sensors` of a profile; raises UsageError for one that cannot be."""
        try:
            parameters = PowerParameters(**board["power"])
            sensors = [_sensor(**table) for table in board["sensors"]]
            if len({(type(sensor), sensor.folder) for sensor in sensors}) < len(sensors):
                raise ValueError("two sensors would be in one place")
        except (KeyError, TypeError, ValueError) as fault:
            raise UsageError(f"power of a board: {fault}", hint=f"kinds of sensors are {', '.join(KINDS)}") from fault
        always = (
            CpuThermal(),
            ThermalZone(),
            Accounting(cores=len(cores_of(board))),
            Clock(frequencies_khz=tuple(tuple(core["frequencies_khz"]) for core in cores_of(board))),
            *((Firmware(),) if board["firmware"] else ()),
        )
        return cls(parameters=parameters, sensors=(*always, *sensors))

    def intervals_s(self) -> set[float]:
        return {sensor.interval_s for sensor in self.sensors if sensor.interval_s}

    def folders(self) -> dict[str, list[Sensor]]:
        """Folder -> the sensors that have files in it."""
        found: dict[str, list[Sensor]] = {}
        for sensor in self.sensors:
            found.setdefault(sensor.folder, []).append(sensor)
        return found


def _sensor(kind: str, **settings: Any) -> Sensor:
    return KINDS[kind](**settings)


def links(sensors: Sequence[Sensor]) -> Iterator[tuple[str, str]]:
    """The symbolic links of a device's /sys: (path below /sys, text of the link). Chips are numbered as they come."""
    chips = 0
    for sensor in sensors:
        hwmon = f"hwmon{chips}"
        found = list(sensor.links(hwmon))
        chips += any(PurePosixPath(path).name == hwmon for path, _ in found)
        for path, target in found:
            yield path, os.path.relpath(MOUNT / target, PurePosixPath(path).parent)
