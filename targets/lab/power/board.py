"""What every board shows: its work, the processor's temperature, its clock, and the firmware's word on throttling."""

import os
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

    frequencies_khz: tuple[tuple[int, ...], ...]  # of each core, ascending

    folder: ClassVar[str] = "cpufreq"
    interval_s: ClassVar[float] = 0.0
    root_only: ClassVar[frozenset[str]] = frozenset()

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        share = parameters.throttled_share if state.throttled else 1.0
        return {f"cpu{core}": _nearest_below(khz, share) for core, khz in enumerate(self.frequencies_khz)}

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        for core in range(len(self.frequencies_khz)):
            for name in ("scaling_cur_freq", "cpuinfo_cur_freq"):
                yield f"devices/system/cpu/cpu{core}/cpufreq/{name}", f"{self.folder}/cpu{core}"


def _nearest_below(frequencies_khz: tuple[int, ...], share: float) -> int:
    most_khz = share * frequencies_khz[-1]
    return max((khz for khz in frequencies_khz if khz <= most_khz), default=frequencies_khz[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """What the kernel says of its own work: of this device's programs, where /proc would tell the whole machine's."""

    cores: int

    folder: ClassVar[str] = "proc"
    interval_s: ClassVar[float] = 0.0
    root_only: ClassVar[frozenset[str]] = frozenset()

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        lasted_s = state.now_s - state.began_s
        busy_s = min(state.cpu_s, self.cores * lasted_s)
        idle_s = self.cores * lasted_s - busy_s
        one = _ticks(busy_s / self.cores), _ticks(idle_s / self.cores)
        rows = [("cpu ", _ticks(busy_s), _ticks(idle_s)), *((f"cpu{core}", *one) for core in range(self.cores))]
        lines = [f"{name} {busy} 0 0 {idle} 0 0 0 0 0 0" for name, busy, idle in rows]
        lines += ["ctxt 0", "processes 1", "procs_running 1", "procs_blocked 0"]
        loads = " ".join(f"{load:.2f}" for load in state.loads)
        # Uptime is the machine's: a program's clock since boot (CLOCK_BOOTTIME) is, and both must be one clock.
        return {"stat": "\n".join(lines), "loadavg": f"{loads} 1/1 1", "uptime": f"{state.now_s:.2f} {idle_s:.2f}"}

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        """Nowhere in /sys; `mount_accounting` puts them into /proc."""
        yield from ()


def _ticks(seconds: float) -> int:
    return int(seconds * os.sysconf("SC_CLK_TCK"))


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
