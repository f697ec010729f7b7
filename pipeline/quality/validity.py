"""Whether one benchmark of a run may be believed, from what the device said of itself around it. Pure.

A session of many blocks has more to go by: `pipeline.measuring.validity`.
"""

from collections.abc import Mapping

from pipeline.measuring.records import Doubt, Finding
from targets.records import Measurement

# Of `vcgencmd get_throttled`; the same 16 places higher: has happened since boot.
_BITS: Mapping[int, tuple[Doubt, str]] = {
    0: ("under-voltage", "under-voltage"),
    1: ("throttled", "frequency-capped"),
    2: ("throttled", "throttled"),
    3: ("throttled", "at the soft temperature limit"),
}
_SINCE_BOOT = 16
_REMEDIES: Mapping[Doubt, str] = {
    "under-voltage": "use a supply and a cable that hold the voltage",
    "throttled": "cool the device, or measure less at a time",
}


def findings(measured: Measurement) -> list[Finding]:
    """Everything that invalidates the measurement, from its conditions as observed before and after."""
    return [*_throttled(measured), *_plugged(measured)]


def _throttled(measured: Measurement) -> list[Finding]:
    before, after = (_bits(measured.conditions.get(f"throttled_{moment}", "")) for moment in ("before", "after"))
    found = []
    for bit, (doubt, words) in _BITS.items():
        now = (before | after) >> bit & 1
        new = (after & ~before) >> (bit + _SINCE_BOOT) & 1
        if now or new:
            when = "at its end" if after >> bit & 1 else "at its beginning" if now else "during it"
            heat = " → ".join(
                f"{measured.conditions[key]} °C"
                for key in ("temperature_c_before", "temperature_c_after")
                if key in measured.conditions
            )
            detail = f"{words} {when}" + (f" ({heat})" if heat else "")
            found.append(Finding(doubt=doubt, reason=detail, remedy=_REMEDIES[doubt], blocking=True))
    return found


def _bits(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


def _plugged(measured: Measurement) -> list[Finding]:
    """A battery that was plugged in or unplugged on the way: phones clock themselves differently."""
    before, after = (measured.conditions.get(f"battery_status_{moment}") for moment in ("before", "after"))
    if before and after and (before == "discharging") != (after == "discharging"):
        detail = f"the battery went from {before} to {after}"
        remedy = "leave the charger as it is, and run again"
        return [Finding(doubt="power-source-changed", reason=detail, remedy=remedy, blocking=True)]
    return []
