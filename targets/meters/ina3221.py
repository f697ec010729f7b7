"""INA3221, as NVIDIA's Jetsons have it: three channels of voltage and current, and no power.

Source: Documentation/hwmon/ina3221.rst. On a Jetson one channel, VDD_IN, is the module's input and contains the others:
it alone is used where it is. The driver's in7 and curr4 are sums over channels and are never read. Elsewhere the
channels are taken for separate lines, and added.
"""

from collections.abc import Mapping, Sequence

from targets.meter import Readings
from targets.meters.ina2xx import traced
from targets.meters.sysfs import folders, numbers, whole
from targets.records import Absent, PowerSource, PowerTrace

_INPUTS = ("VDD_IN", "POM_5V_IN", "SYS_VIN_MUX", "VIN_SYS_5V0")  # of the Orin and Xavier NX, Nano, AGX, AGX Orin
_STEP_V = 40e-6  # over the shunt
_FASTEST_S = 0.04
_ERROR_SHARE = 0.015  # gain 0.5 % (data sheet), and 1 % that a shunt resistor usually may be off


class Ina3221:
    def sources(self, sensors: Mapping[str, str]) -> Sequence[PowerSource]:
        chips = {f: files for f, files in folders(sensors, "class/hwmon").items() if files.get("name") == "ina3221"}
        return [_source(folder, files) for folder, files in chips.items() if _channels(files)]

    def trace(self, source: PowerSource, readings: Readings) -> PowerTrace | Absent:
        samples = list(numbers(readings))
        # Milliamperes and millivolts of each channel in turn.
        power_w = [
            sum(amperes * volts for amperes, volts in zip(values[::2], values[1::2], strict=True)) * 1e-6
            for _, values in samples
        ]
        return traced(source, [time_ns for time_ns, _ in samples], power_w)


def _channels(files: Mapping[str, str]) -> dict[int, str]:
    """Number -> label of the channels that contain each other in no way."""
    labels = {
        channel: files.get(f"in{channel}_label", f"channel {channel}")
        for channel in (1, 2, 3)
        if whole(files.get(f"in{channel}_input")) is not None and whole(files.get(f"curr{channel}_input")) is not None
    }
    return {channel: label for channel, label in labels.items() if label in _INPUTS} or labels


def _source(folder: str, files: Mapping[str, str]) -> PowerSource:
    channels = _channels(files)
    interval_s = (whole(files.get("update_interval")) or 7) * 1e-3
    step_w = 0.0
    for channel in channels:
        shunt_ohm = (whole(files.get(f"shunt{channel}_resistor")) or 5000) * 1e-6  # what Jetsons have
        step_w += max(_STEP_V / shunt_ohm, 1e-3) * (whole(files[f"in{channel}_input"]) or 0) * 1e-3
    what = "input of the whole module" if set(channels.values()) & set(_INPUTS) else "sum of these lines"
    return PowerSource(
        meter="ina3221",
        place=folder,
        scope=f"{' + '.join(channels.values())}, {what}",
        interval_s=max(interval_s, _FASTEST_S),
        averaging_s=interval_s,
        resolution_w=step_w,
        error_share=_ERROR_SHARE,
        files=tuple(f"{folder}/{kind}{channel}_input" for channel in channels for kind in ("curr", "in")),
    )
