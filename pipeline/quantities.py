"""Quantities as people write them in deploy.yaml ("1.5 MB", "20 ms") and as we print them."""

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
    "s": {"ms": 1e-3, "s": 1, "min": 60},
    "j": {"uj": 1e-6, "µj": 1e-6, "mj": 1e-3, "j": 1},
}
_WRITTEN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]*)\s*")


def parse_quantity(text: object, dimension: str) -> float:
    """Read a positive quantity of `dimension` ("bytes", "ms", "s", "j"); a bare number is in that unit.

    Raises:
        UsageError: not a number with a unit of that dimension.
    """
    units = _UNITS[dimension]
    matched = _WRITTEN.fullmatch(str(text))
    unit = (matched[2].lower() or dimension) if matched else ""
    if dimension == "bytes" and unit == "bytes":
        unit = "b"
    if not matched or unit not in units or float(matched[1]) <= 0:
        known = ", ".join(units)
        raise UsageError(f"{text!r} is not a positive quantity", hint=f"write a number and one of: {known}")
    return float(matched[1]) * units[unit]


def format_bytes(count: float) -> str:
    """A number of bytes for people, in decimal units and three digits: "895 kB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
