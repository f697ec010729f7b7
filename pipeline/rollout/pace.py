"""How long steps take on devices, learned from the steps that the journal has. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

# What an estimate rests on: this device's own past, its class's, or nothing but experience.
Basis = Literal["measured", "alike", "guess"]
# The last few: a device's disk and link change, and the median of five still bears two bad days.
_LAST = 5
# Before anything was sent to a device: what a Raspberry Pi on a home's Wi-Fi takes.
USUAL_BYTES_PER_S = 2e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """One step that went well."""

    device: str
    step: str
    seconds: float
    bytes_per_s: float = 0.0  # of a transfer that was long enough to tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The past of devices and of their classes: (device or class, step) → seconds; for `transfer`, bytes a second."""

    devices: Mapping[tuple[str, str], float] = field(default_factory=dict)
    classes: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def of(self, device: str, device_class: str, step: str, prior: float) -> tuple[float, Basis]:
        """The value to reckon with, and what it rests on."""
        if (device, step) in self.devices:
            return self.devices[device, step], "measured"
        if (device_class, step) in self.classes:
            return self.classes[device_class, step], "alike"
        return prior, "guess"


def learned(past: Iterable[Took], classes: Mapping[str, str]) -> Pace:
    """The medians of the last few; a class has the median of its devices. `past` begins with the newest,
    `classes` is device → class."""
    seen: dict[tuple[str, str], list[float]] = {}
    for one in past:
        value = one.bytes_per_s if one.step == "transfer" else one.seconds
        values = seen.setdefault((one.device, one.step), [])
        if len(values) < _LAST and (value or one.step != "transfer"):
            values.append(value)
    devices = {key: median(values) for key, values in seen.items() if values}
    alike: dict[tuple[str, str], list[float]] = {}
    for (device, step), value in devices.items():
        if device in classes:
            alike.setdefault((classes[device], step), []).append(value)
    return Pace(devices=devices, classes={key: median(values) for key, values in alike.items()})
