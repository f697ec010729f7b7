"""The power meters, as data: listing them imports none of them."""

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from targets.errors import MissingExtra, UsageError
from targets.meter import DeviceMeter, LogMeter

# Read on the device; the best first: what sees the whole board, what sees its parts, the battery with its slow gauge.
METERS: Mapping[str, str] = {
    "ina3221": "targets.meters.ina3221:Ina3221",
    "ina2xx": "targets.meters.ina2xx:Ina2xx",
    "rpi5-pmic": "targets.meters.pmic:Pmic",
    "odpm": "targets.meters.odpm:Odpm",
    "battery": "targets.meters.battery:Battery",
    "rapl": "targets.meters.rapl:Rapl",
    "rpi5-board": "targets.meters.pmic:FittedPmic",
}
# Files on this machine, given as NAME:PATH.
LOGS: Mapping[str, str] = {
    "csv": "targets.meters.csv_log:CsvLog",
    "replay": "targets.meters.replay:Replay",
}
ENTRY_POINT_GROUP = "edge_deploy.meters"


@cache
def device_meters() -> Mapping[str, DeviceMeter]:
    """All of them by name: ours in their order, then those of other packages. Raises MissingExtra."""
    others = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return {name: _load(name, place)() for name, place in {**METERS, **others}.items()}


def log_meter(asked: str) -> LogMeter | None:
    """The log that `meter: NAME:PATH` asks for; None when it is no log. Raises UsageError for one without a path."""
    name, _, path = asked.partition(":")
    if name not in LOGS:
        return None
    if not path:
        raise UsageError(f"meter {name} needs a file", hint=f"meter: {name}:PATH")
    log: LogMeter = _load(name, LOGS[name])(path)
    return log


def _load(name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as fault:
        raise MissingExtra(f"meter {name!r} cannot be loaded: {fault}", hint="reinstall the package") from fault
