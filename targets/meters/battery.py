"""The gauge of a battery, by the kernel's power_supply class: Android phones and Linux laptops.

The class says microamperes and microvolts; some drivers give milliamperes all the same, and the sign of discharging is
either. Both are decided by evidence: the unit by which of the two makes a power that such a device can draw, the sign
by the battery being known to discharge. A battery that charges, or a charger at its side, says nothing of the device.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import median

from targets.meter import Readings
from targets.meters.ina2xx import traced
from targets.meters.sysfs import folders, whole
from targets.records import Absent, PowerSource, PowerTrace

_LEAST_W, _MOST_W = 0.2, 150.0  # of something that is awake and works: a phone's 0.2 W, a laptop's 150 W
_UNITS = {"µA": 1e-12, "mA": 1e-9}  # times microvolts: watts. They are a factor 1000 apart, the band one of 750
_INTERVAL_S = 0.25  # gauges show something new every 1 to 10 s; more often costs little and tells when
_AVERAGING_S = 1.0
_ERROR_SHARE = 0.05  # of the current, by what makers of gauges promise without calibration
_UNSURE = 0.05  # a share of samples of the other sign that noise around a small current may have
_DISCHARGING = "Discharging"
_HINT = "unplug it (adb over Wi-Fi for a phone)"


class Battery:
    def sources(self, sensors: Mapping[str, str]) -> Sequence[PowerSource]:
        supplies = folders(sensors, "class/power_supply")
        chargers = [
            folder.rpartition("/")[2]
            for folder, files in supplies.items()
            if files.get("type", "Battery") != "Battery" and files.get("online") == "1"
        ]
        return [found for f, files in supplies.items() if (found := _source(f, files, chargers))]

    def trace(self, source: PowerSource, readings: Readings) -> PowerTrace | Absent:
        if told := {texts[-1] for texts in readings.values} - {_DISCHARGING, ""}:
            reason = f"the battery was {' and '.join(sorted(told)).lower()} during the run; {_HINT}"
            return Absent(reason=reason)
        samples = [
            (at, [value for value in values if value is not None])
            for at, texts in zip(readings.time_ns, readings.values, strict=True)
            if None not in (values := [whole(text) for text in texts[:-1]])
        ]
        if not samples:
            return Absent(reason=f"battery ({source.place}) gave no reading")
        time_ns = [at for at, _ in samples]
        products = [float(math.prod(values)) for _, values in samples]
        positive = sum(product > 0 for product in products) / len(products)
        if _UNSURE < positive < 1 - _UNSURE:
            return Absent(
                reason=f"the battery's current changed its sign: it was positive in {positive:.0%} of the samples"
            )
        sign = 1.0 if positive > 0.5 else -1.0
        scale, note = 1e-6, "power_now"
        if len(samples[0][1]) == 2:
            unit = _unit(products)
            if unit is None:
                watts = " or ".join(f"{abs(median(products)) * scale:.3g} W" for scale in _UNITS.values())
                return Absent(reason=f"the battery's current has no unit that makes sense: it would be {watts}")
            scale, note = _UNITS[unit], f"current_now in {unit}"
        power_w = [product * sign * scale for product in products]
        seen = replace(source, averaging_s=_update_s(time_ns, power_w) or source.averaging_s)
        return traced(seen, time_ns, power_w, note, f"discharging is {'+' if sign > 0 else '−'}")


def _source(folder: str, files: Mapping[str, str], chargers: Sequence[str]) -> PowerSource | None:
    """A gauge with current and voltage, or power; the nodes of some phones are called bms or main."""
    both = whole(files.get("current_now")) is not None and whole(files.get("voltage_now")) is not None
    if files.get("type", "Battery") != "Battery" or not (both or whole(files.get("power_now"))):
        return None
    names = ("current_now", "voltage_now") if both else ("power_now",)
    status = files.get("status", "")
    refused = ""
    if status != _DISCHARGING:
        refused = (
            f"the battery is {status.lower() or 'in an unknown state'}, so its current is not the device's; {_HINT}"
        )
    elif chargers:
        refused = f"{', '.join(chargers)} is connected, so the battery gives only a part; {_HINT}"
    return PowerSource(
        meter="battery",
        place=folder,
        scope="whole device, at its battery",
        interval_s=_INTERVAL_S,
        averaging_s=_AVERAGING_S,
        error_share=_ERROR_SHARE,
        files=tuple(f"{folder}/{name}" for name in (*names, "status")),
        refused=refused,
    )


def _unit(products: Sequence[float]) -> str | None:
    """The unit in which the device's typical power is one that it can have."""
    typical = abs(median(products))
    return next((unit for unit, scale in _UNITS.items() if _LEAST_W <= typical * scale <= _MOST_W), None)


def _update_s(time_ns: Sequence[int], power_w: Sequence[float]) -> float | None:
    """How often the gauge showed something new; None when it hardly ever did."""
    steps = zip(pairwise(time_ns), pairwise(power_w), strict=True)
    changes = [later for (_, later), (before_w, after_w) in steps if after_w != before_w]
    gaps = [(after - before) * 1e-9 for before, after in pairwise(changes)]
    return median(gaps) if len(gaps) >= 3 else None
