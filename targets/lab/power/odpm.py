"""The power rails monitor of a Pixel: accumulating registers of its power chips, and what the phone's power HAL says.

On production builds only the HAL may read the driver's file, so it is at no place where others look for it; `dumpsys
android.hardware.power.stats.IPowerStats/default` asks the HAL (format: hardware/google/pixel/powerstats).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from targets.lab.power.model import PowerParameters, State

# Rail, subsystem, its share of what idling draws and of what busy cores add. Of the rails that contain no other, both
# are 1 together, so that what was really drawn is known; the last is fed by another one.
_RAILS = (
    ("S2M_VDD_CPUCL2", "CPU(BIG)", 0.04, 0.62),
    ("S3M_VDD_CPUCL1", "CPU(MID)", 0.03, 0.18),
    ("S4M_VDD_CPUCL0", "CPU(LITTLE)", 0.05, 0.08),
    ("S5M_VDD_INT", "INT", 0.16, 0.07),
    ("S10M_VDD_TPU", "TPU", 0.02, 0.0),
    ("VSYS_PWR_MODEM", "Modem", 0.30, 0.0),
    ("VSYS_PWR_DISPLAY", "Display", 0.40, 0.05),
    ("L2S_VDD_AOC_RET", "AOC", 0.05, 0.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Odpm:
    """Rails in µWs since boot, the driver's way and the HAL's."""

    readable: bool = False  # the driver's file at its usual place, as on rooted phones

    folder: ClassVar[str] = "odpm"
    interval_s: ClassVar[float] = 0.0
    root_only: ClassVar[frozenset[str]] = frozenset({"energy_value"})

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        idle_j, uptime_ms = state.energy_j - state.busy_j, round(state.now_s * 1e3)
        rails = [(name, part, int((idle * idle_j + busy * state.busy_j) * 1e6)) for name, part, idle, busy in _RAILS]
        driver = [f"CH{n}(T={uptime_ms})[{name}], {uws}" for n, (name, _, uws) in enumerate(rails)]
        told = [f"  {f'[{name}]:{part}':>32}   {uws / 1e3:14.2f} mWs" for name, part, uws in rails]
        return {
            "energy_value": "\n".join([f"t={uptime_ms}", *driver]),
            "hal": "\n".join(
                [
                    "",
                    "============= PowerStats HAL 2.0 energy meter ==============",
                    f"  {'Channel':>32}   {'Cumulative Energy':>18}",
                    *told,
                    "========== End of PowerStats HAL 2.0 energy meter ==========",
                ]
            ),
        }

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        if self.readable:
            yield "bus/iio/devices/iio:device0", self.folder
