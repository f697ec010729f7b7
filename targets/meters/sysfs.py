"""Sensor files by folder, and numbers from their texts: what all meters of the kernel share."""

from collections.abc import Iterator, Mapping

from targets.meter import Readings


def folders(sensors: Mapping[str, str], below: str) -> Mapping[str, Mapping[str, str]]:
    """Folder of a class, such as `/sys/class/hwmon/hwmon1` -> its files by name."""
    found: dict[str, dict[str, str]] = {}
    for path, text in sensors.items():
        folder, _, name = path.rpartition("/")
        if folder.rpartition("/")[0].endswith(below):
            found.setdefault(folder, {})[name] = text
    return found


def whole(text: str | None) -> int | None:
    """The whole number that a file says; None when it says none."""
    text = (text or "").strip()
    return int(text) if text.removeprefix("-").isdecimal() else None


def numbers(readings: Readings) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Time stamp and values of every sample of which no file failed."""
    for time_ns, texts in zip(readings.time_ns, readings.values, strict=True):
        values = [whole(text) for text in texts]
        if None not in values:
            yield time_ns, tuple(value for value in values if value is not None)
