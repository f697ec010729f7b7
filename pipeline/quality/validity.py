"""What the device said of itself around a benchmark, against what makes its numbers those of another device. Pure."""

from pipeline.derived import Finding
from targets.records import Measurement

# Of `vcgencmd get_throttled`; the same 16 places higher: has happened since boot.
_BITS = {0: "under-voltage", 1: "frequency-capped", 2: "throttled", 3: "soft-temperature-limit"}
_SINCE_BOOT = 16
_REMEDIES = {
    "under-voltage": "use a supply and a cable that hold the voltage",
    "frequency-capped": "cool the device, or measure less at a time",
    "throttled": "cool the device, or measure less at a time",
    "soft-temperature-limit": "cool the device, or measure less at a time",
}


def findings(measured: Measurement) -> list[Finding]:
    """Everything that invalidates the measurement, from its conditions as observed before and after."""
    return [*_throttled(measured), *_plugged(measured)]


def _throttled(measured: Measurement) -> list[Finding]:
    before, after = (_bits(measured.conditions.get(f"throttled_{moment}", "")) for moment in ("before", "after"))
    found = []
    for bit, code in _BITS.items():
        now = (before | after) >> bit & 1
        new = (after & ~before) >> (bit + _SINCE_BOOT) & 1
        if now or new:
            when = "at its end" if after >> bit & 1 else "at its beginning" if now else "during it"
            heat = " → ".join(
                f"{measured.conditions[key]} °C"
                for key in ("temperature_c_before", "temperature_c_after")
                if key in measured.conditions
            )
            detail = f"{code} {when}" + (f" ({heat})" if heat else "")
            found.append(Finding(code=code, detail=detail, remedy=_REMEDIES[code]))
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
        return [Finding(code="power-source-changed", detail=detail, remedy="leave the charger as it is, and run again")]
    return []
