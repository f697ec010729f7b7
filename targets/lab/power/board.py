"""What every board shows of its heat: the processor's temperature, its clock, and the firmware's word on throttling."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from targets.lab.power.model import PowerParameters, State


def _millidegrees(state: State) -> int:
    return round(state.temperature_c * 1e3)


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuThermal:
    """The processor's temperature as a hwmon chip."""

    folder: ClassVar[str] = "cpu_thermal"
    interval_s: ClassVar[float] = 0.0
    root_only: ClassVar[frozenset[str]] = frozenset()

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        return {"name": "cpu_thermal", "temp1_input": _millidegrees(state)}

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        yield f"class/hwmon/{hwmon}", self.folder


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalZone:
    """The same as a thermal zone."""

    folder: ClassVar[str] = "thermal_zone0"
    interval_s: ClassVar[float] = 0.0
    root_only: ClassVar[frozenset[str]] = frozenset()

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        return {
            "type": "cpu-thermal",
            "temp": _millidegrees(state),
            "mode": "enabled",
            "policy": "step_wise",
            "trip_point_0_temp": 110_000,  # where the board switches itself off
            "trip_point_0_type": "critical",
        }

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        yield "class/thermal/thermal_zone0", self.folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The frequency of the cores, which falls when the device is throttled."""

    cores: int
    frequencies_khz: tuple[int, ...]  # ascending

    folder: ClassVar[str] = "cpufreq"
    interval_s: ClassVar[float] = 0.0
    root_only: ClassVar[frozenset[str]] = frozenset()

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        current_khz = self.frequencies_khz[-1]
        if state.throttled:
            most_khz = parameters.throttled_share * current_khz
            current_khz = max((khz for khz in self.frequencies_khz if khz <= most_khz), default=self.frequencies_khz[0])
        return {"scaling_cur_freq": current_khz, "cpuinfo_cur_freq": current_khz}

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        for core in range(self.cores):
            for name in ("scaling_cur_freq", "cpuinfo_cur_freq"):
                yield f"devices/system/cpu/cpu{core}/cpufreq/{name}", f"{self.folder}/{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Firmware:
    """What `vcgencmd get_throttled` prints."""

    folder: ClassVar[str] = "firmware"
    interval_s: ClassVar[float] = 0.0
    root_only: ClassVar[frozenset[str]] = frozenset()

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        return {"get_throttled": f"throttled={state.throttled_bits():#x}"}

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        """Nowhere but in the firmware's command."""
        yield from ()
