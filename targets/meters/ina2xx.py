"""INA219, INA220, INA226, INA230, INA231 in the supply, by the kernel's hwmon driver ina2xx.

Sources: Documentation/hwmon/ina2xx.rst and the data sheets. Power is a register of its own, in steps of 20 or 25 of the
current register's. Current times voltage has finer steps, so it is used where it does, at the driver's whole
milliamperes; both come from the same conversion unless one ends between the two reads, which is noise and no error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from targets.meter import Readings
from targets.meters.sysfs import folders, numbers, whole
from targets.records import Absent, PowerSource, PowerTrace

_MICRO = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chip:
    shunt_step_v: float  # of the shunt's voltage
    power_steps: int  # the power register counts so many steps of the current register
    error_share: float  # gain, by the data sheet, and 1 % that a shunt resistor usually may be off
    interval_s: float  # where the driver does not say: its defaults


# INA219 and INA220: 12 bits, one conversion of shunt and bus; the others: 16 samples of 1.1 ms of either.
_OLD = _Chip(shunt_step_v=10e-6, power_steps=20, error_share=0.015, interval_s=0.0011)
_NEW = _Chip(shunt_step_v=2.5e-6, power_steps=25, error_share=0.011, interval_s=0.035)
_CHIPS: Mapping[str, _Chip] = {"ina219": _OLD, "ina220": _OLD, "ina226": _NEW, "ina230": _NEW, "ina231": _NEW}
# Faster chips are read no faster than this: 25 readings a second of a steady load say all there is to know.
_FASTEST_S = 0.04


class Ina2xx:
    """The driver's chips, found by name: numbers of hwmon folders change from boot to boot."""

    def sources(self, sensors: Mapping[str, str]) -> Sequence[PowerSource]:
        return [
            found
            for folder, files in folders(sensors, "class/hwmon").items()
            if (chip := _CHIPS.get(files.get("name", ""))) and (found := _source(folder, files, chip))
        ]

    def trace(self, source: PowerSource, readings: Readings) -> PowerTrace | Absent:
        samples = list(numbers(readings))
        # One file: microwatts. Two: milliamperes and millivolts.
        power_w = [values[0] * _MICRO if len(values) == 1 else values[0] * values[1] * _MICRO for _, values in samples]
        return traced(source, [time_ns for time_ns, _ in samples], power_w)


def traced(source: PowerSource, time_ns: Sequence[int], power_w: Sequence[float], *notes: str) -> PowerTrace | Absent:
    """The trace of a sensor that shows power."""
    if not time_ns:
        return Absent(reason=f"{source.meter} ({source.place}) gave no reading")
    return PowerTrace(
        meter=source.meter,
        scope=source.scope,
        time_ns=tuple(time_ns),
        power_w=tuple(power_w),
        kind=source.kind,
        interval_s=source.interval_s,
        averaging_s=source.averaging_s,
        resolution_w=source.resolution_w,
        error_share=source.error_share,
        notes=notes,
    )


def _source(folder: str, files: Mapping[str, str], chip: _Chip) -> PowerSource | None:
    if "power1_input" not in files and not {"curr1_input", "in1_input"} <= files.keys():
        return None
    name = files["name"]
    shunt_ohm = (whole(files.get("shunt_resistor")) or 0) * _MICRO
    interval_s = (whole(files.get("update_interval")) or 0) * 1e-3 or chip.interval_s
    step_a = chip.shunt_step_v / shunt_ohm if shunt_ohm else 0.0
    power_step_w = step_a * chip.power_steps  # of a register that is multiplied by 1 V, as the data sheets choose it
    volts = (whole(files.get("in1_input")) or 0) * 1e-3
    product_step_w = max(step_a, 1e-3) * volts
    files_read = [f"{folder}/power1_input"]
    resolution_w = power_step_w
    if "power1_input" not in files or (product_step_w and product_step_w < power_step_w):
        files_read, resolution_w = [f"{folder}/curr1_input", f"{folder}/in1_input"], product_step_w
    label = files.get("label", "")
    return PowerSource(
        meter="ina2xx",
        place=folder,
        scope=f"{label}, by its {name}" if label else f"the line that its {name} is in",
        interval_s=max(interval_s, _FASTEST_S),
        averaging_s=interval_s,
        resolution_w=resolution_w,
        error_share=chip.error_share,
        files=tuple(files_read),
        refused="" if shunt_ohm or "shunt_resistor" not in files else "its shunt_resistor is 0: all readings are wrong",
    )
