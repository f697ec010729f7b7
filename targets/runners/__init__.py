"""The runners for devices without Python, as data: listing them imports none of them."""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points

from targets.errors import MissingExtra, UsageError
from targets.runner import Runner

RUNNERS: Mapping[str, str] = {
    "native": "targets.runners.native:NativeRunner",
    "benchmark_model": "targets.runners.benchmark_model:BenchmarkModelRunner",
}
ENTRY_POINT_GROUP = "edge_deploy.runners"


def load_runner(name: str) -> type[Runner]:
    """The runner class of that name, of the first one for an empty name.

    Raises UsageError when there is none of that name, MissingExtra when it cannot be imported.
    """
    chosen = name or next(iter(RUNNERS))
    place = RUNNERS.get(chosen)
    if place is None:  # asking for entry points reads a file of every installed package: for each of a fleet's devices
        others = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
        place = others.get(chosen)
    if place is None:
        known = ", ".join(sorted({*RUNNERS, *others}))
        raise UsageError(f"no runner is called {chosen!r}", hint=f"use one of: {known}")
    module, _, attribute = place.partition(":")
    try:
        found: type[Runner] = getattr(importlib.import_module(module), attribute)
    except ImportError as fault:
        raise MissingExtra(f"runner {chosen!r} cannot be loaded: {fault}", hint="reinstall the package") from fault
    return found
