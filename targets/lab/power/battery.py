"""The battery of a phone as the kernel's power_supply class shows it, with what drivers make of unit and sign."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from targets.lab.power.model import PowerParameters, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Battery:
    """Discharging while no charger is connected. Source of the quirks: issue threads of energy meters for Android."""

    capacity_j: float = 66_000.0  # 4 700 mAh
    charge: float = 0.81  # at boot, of 1
    full_v: float = 4.3
    empty_v: float = 3.5  # the voltage falls with the charge; a straight line is near enough
    current_unit: Literal["uA", "mA"] = "uA"  # the kernel says uA, and some drivers give mA all the same
    discharge_sign: Literal[-1, 1] = -1
    supply: str = "battery"  # name of the node; some have it as `bms`
    heat_share: float = 0.4  # of the processor's warmth that reaches the battery
    interval_s: float = 1.0  # gauges take 1 to 10
    charger_w: float = 7.5  # what a charger at 5 V and 1.5 A gives

    root_only: ClassVar[frozenset[str]] = frozenset()

    @property
    def folder(self) -> str:
        return self.supply

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        charge = max(0.0, self.charge - state.energy_j / self.capacity_j)
        volts = self.empty_v + (self.full_v - self.empty_v) * charge
        drawn_w = state.mean_w(self.interval_s) - (self.charger_w if state.plugged else 0.0)
        scale = {"uA": 1e6, "mA": 1e3}[self.current_unit]
        warmth_k = (state.temperature_c - parameters.ambient_c) * self.heat_share
        return {
            "type": "Battery",
            "present": 1,
            "status": "Charging" if state.plugged else "Discharging",
            "health": "Good",
            "technology": "Li-ion",
            "capacity": int(charge * 100),
            "voltage_now": round(volts * 1e6),
            "current_now": self.discharge_sign * round(drawn_w / volts * scale),
            "temp": round((parameters.ambient_c + warmth_k) * 10),
        }

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        yield f"class/power_supply/{self.supply}", self.folder
