"""Quantities as people write them in deploy.yaml ("1.5 MB", "20 ms"), and as they read them: three significant digits,
a fitting unit, a true minus sign."""

import math
import re

from pipeline.errors import UsageError

_UNITS: dict[str, dict[str, float]] = {
    "bytes": {
        "b": 1,
        "kb": 1e3,
        "mb": 1e6,
        "gb": 1e9,
        "kib": 2**10,
        "mib": 2**20,
        "gib": 2**30,
    },
    "ms": {"us": 1e-3, "µs": 1e-3, "ms": 1, "s": 1e3},
    "s": {"ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400},
    "k": {"k": 1},
    "share": {"share": 1, "%": 0.01},
    "j": {"uj": 1e-6, "µj": 1e-6, "mj": 1e-3, "j": 1},
}
_WRITTEN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ%]*)\s*")

MINUS = "−"
# Below this share a change is noise of rounding, not something won or lost.
_NO_CHANGE = 0.005
# From here on "24×" is easier to grasp than "+2300 %".
_AS_FACTOR = 3.0


def parse_quantity(text: object, dimension: str) -> float:
    """Read a positive quantity of `dimension` ("bytes", "ms", "s", "share", "k", "j"); a bare number is in that unit.

    Raises:
        UsageError: not a number with a unit of that dimension.
    """
    units = _UNITS[dimension]
    matched = _WRITTEN.fullmatch(str(text))
    unit = (matched[2].lower() or dimension) if matched else ""
    if dimension == "bytes" and unit == "bytes":
        unit = "b"
    if not matched or unit not in units or not 0 < float(matched[1]) < math.inf:
        known = ", ".join(units)
        raise UsageError(f"{text!r} is not a positive quantity", hint=f"write a number and one of: {known}")
    return float(matched[1]) * units[unit]


def number(value: float, digits: int = 3) -> str:
    """`digits` significant digits, never in exponent notation between 0.0001 and 10^15."""
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    # 9.996 rounds to 10.0: one more digit before the point, so one fewer after it.
    if rounded and math.floor(math.log10(abs(rounded))) > math.floor(math.log10(abs(value))):
        places -= 1
    text = f"{rounded:.{max(places, 0)}f}" if abs(value) < 1e15 and places < 9 else f"{value:.{digits - 1}e}"
    return text.replace("-", MINUS)


def size(count_bytes: float) -> str:
    """Decimal units, as file managers and data sheets have them: 1 kB is 1000 bytes."""
    for limit, divisor, unit in ((1e3, 1, "B"), (1e6, 1e3, "kB"), (1e9, 1e6, "MB")):
        # 999.6 kB would round to "1000 kB": hand it to the next unit.
        if abs(count_bytes) < limit * 0.9995:
            return f"{number(count_bytes / divisor)} {unit}"
    return f"{number(count_bytes / 1e9)} GB"


def milliseconds(value: float) -> str:
    factor, unit = _time_unit(value)
    return f"{number(value * factor)} {unit}"


def interval(low: float, high: float, like: float) -> str:
    """`[6.06, 6.21]`, in the unit that `milliseconds(like)` shows."""
    factor, _ = _time_unit(like)
    return f"[{number(low * factor)}, {number(high * factor)}]"


def _time_unit(value_ms: float) -> tuple[float, str]:
    if value_ms and abs(value_ms) < 0.9995:
        return 1e3, "µs"
    return (1.0, "ms") if abs(value_ms) < 999.5 else (1e-3, "s")


def joules(value: float) -> str:
    for factor, unit in ((1e6, "µJ"), (1e3, "mJ")):
        if value and abs(value) * factor < 999.5:
            return f"{number(value * factor)} {unit}"
    return f"{number(value)} J"


def margin(error: float, value: float) -> str:
    """`± 3.1 %` of the value; below a thousandth the digits shown say it already."""
    share = error / abs(value) if value else 0.0
    return f"± {number(share * 100, 2)} %" if share >= 0.001 else "± 0.1 %"


def metric(value: float, unit: str) -> str:
    """Task metrics are compared in their last digits, so they get four, and at least two after the point."""
    places = 2 if abs(value) >= 10 else 3
    text = f"{value:.{places}f}" if abs(value) >= 0.01 or value == 0 else number(value)
    return with_unit(text.replace("-", MINUS), unit)


def with_unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if unit else text


def signed(value: float, places: int = 2) -> str:
    """`+0.05` or `−0.05`; what rounds to nothing is `±0`."""
    if round(value, places) == 0:
        fine = number(abs(value), 1)
        return "±0" if value == 0 or abs(value) < 10 ** -(places + 3) else f"{_sign(value)}{fine}"
    return f"{_sign(value)}{abs(value):.{places}f}"


def change(value: float, baseline: float) -> str:
    """Relative change: `−73 %`, `±0 %`, or `24×` when it is a multiple. Empty without a baseline to divide by."""
    if baseline <= 0:
        return ""
    ratio = value / baseline
    if ratio >= _AS_FACTOR:
        return f"{number(ratio, 2)}×"
    return percent(ratio - 1)


def percent(share: float) -> str:
    return "±0 %" if abs(share) < _NO_CHANGE else fine_percent(share)


def fine_percent(share: float) -> str:
    """For quality, where a tenth of a percent is no noise."""
    places = 2 if abs(share) < 0.00095 else 1 if abs(share) < 0.0995 else 0
    return f"{_sign(share)}{abs(share) * 100:.{places}f} %"


def unchanged(value: float, baseline: float) -> bool:
    return baseline > 0 and abs(value / baseline - 1) < _NO_CHANGE


def _sign(value: float) -> str:
    return MINUS if value < 0 else "+"
