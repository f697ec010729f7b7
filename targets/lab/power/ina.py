"""Current monitors as the kernel's hwmon drivers show them: the INA226, and the INA3221 of a Jetson."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from targets.lab.power.model import PowerParameters, State


def quantised(value: float, step: float) -> float:
    """The nearest value that the converter has. Nearest, for a floor would take half a step from every mean."""
    return round(value / step) * step


@dataclass(frozen=True, slots=True, kw_only=True)
class Ina226:
    """An INA226 in the supply of the board. Source: Documentation/hwmon/ina2xx.rst and the data sheet."""

    bus_v: float
    shunt_uohm: int = 2500  # makes steps of 1 mA and 25 mW
    interval_s: float = 0.035  # the driver's default: 16 samples of 1.1 ms each for shunt and bus

    folder: ClassVar[str] = "ina226"
    root_only: ClassVar[frozenset[str]] = frozenset()
    _SHUNT_STEP_UV: ClassVar[float] = 2.5
    _BUS_STEP_MV: ClassVar[float] = 1.25
    _POWER_STEPS: ClassVar[int] = 25  # the power register counts 25 steps of the current register

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        power_w = state.mean_w(self.interval_s)
        step_a = self._SHUNT_STEP_UV / self.shunt_uohm
        current_a = quantised(power_w / self.bus_v, step_a)
        return {
            "name": "ina226",
            "in0_input": round(current_a * self.shunt_uohm / 1e3),  # over the shunt
            "in1_input": round(quantised(self.bus_v * 1e3, self._BUS_STEP_MV)),
            "curr1_input": round(current_a * 1e3),
            "power1_input": round(quantised(power_w, step_a * self._POWER_STEPS) * 1e6),
            "shunt_resistor": self.shunt_uohm,
            "update_interval": round(self.interval_s * 1e3),
        }

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        yield f"class/hwmon/{hwmon}", self.folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """One channel: what part of the board's power goes through it."""

    label: str
    volts: float
    idle_share: float
    busy_share: float


# As a Jetson Orin Nano names them. The first contains the two others: adding all three counts energy twice.
_ORIN_RAILS = (
    Rail(label="VDD_IN", volts=5.0, idle_share=1.0, busy_share=1.0),
    Rail(label="VDD_CPU_GPU_CV", volts=5.0, idle_share=0.15, busy_share=0.8),
    Rail(label="VDD_SOC", volts=5.0, idle_share=0.35, busy_share=0.1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ina3221:
    """Three channels with voltage and current but no power. Source: Documentation/hwmon/ina3221.rst."""

    rails: tuple[Rail, Rail, Rail] = _ORIN_RAILS
    shunt_uohm: int = 5000
    interval_s: float = 0.0066  # 3 channels, one sample of 1.1 ms each for shunt and bus

    folder: ClassVar[str] = "ina3221"
    root_only: ClassVar[frozenset[str]] = frozenset()
    _SHUNT_STEP_UV: ClassVar[float] = 40.0
    _BUS_STEP_MV: ClassVar[float] = 8.0

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        busy_w = state.mean_w(self.interval_s) - parameters.idle_w
        found: dict[str, object] = {"name": "ina3221", "update_interval": round(self.interval_s * 1e3)}
        sum_ma = 0
        for channel, rail in enumerate(self.rails, start=1):
            power_w = rail.idle_share * parameters.idle_w + rail.busy_share * busy_w
            current_ma = round(quantised(power_w / rail.volts, self._SHUNT_STEP_UV / self.shunt_uohm) * 1e3)
            sum_ma += current_ma
            found[f"in{channel}_label"] = rail.label
            found[f"in{channel}_enable"] = 1
            found[f"in{channel}_input"] = round(quantised(rail.volts * 1e3, self._BUS_STEP_MV))
            found[f"curr{channel}_input"] = current_ma
            found[f"shunt{channel}_resistor"] = self.shunt_uohm
            found[f"in{channel + 3}_input"] = round(current_ma * self.shunt_uohm / 1e6)  # over the shunt
        found["in7_label"] = "sum of shunt voltages"
        found["in7_input"] = round(sum_ma * self.shunt_uohm / 1e6)
        found["curr4_input"] = sum_ma
        return found

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        yield f"class/hwmon/{hwmon}", self.folder
        yield f"bus/i2c/drivers/ina3221/1-0040/hwmon/{hwmon}", self.folder
