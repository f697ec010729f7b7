"""The runners for devices without Python, as data: listing them imports none of them."""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points

from targets.errors import MissingExtra, UsageError
from targets.runner import Runner

RUNNERS: Mapping[str, str] = {
    "native": "targets.runners.native:NativeRunner",
}
ENTRY_POINT_GROUP = "edge_deploy.runners"


def load_runner(name: str) -> type[Runner] | None:
    """The runner class of that name, of the first one for an empty name; None when there are no runners at all.

    Raises UsageError when there is none of that name, MissingExtra when it cannot be imported.
    """
    places = {**{point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}, **RUNNERS}
    if not places and not name:
        return None
    chosen = name or next(iter(RUNNERS or places))
    if chosen not in places:
        raise UsageError(f"no runner is called {chosen!r}", hint=f"use one of: {', '.join(sorted(places))}")
    module, _, attribute = places[chosen].partition(":")
    try:
        found: type[Runner] = getattr(importlib.import_module(module), attribute)
    except ImportError as fault:
        raise MissingExtra(f"runner {chosen!r} cannot be loaded: {fault}", hint="reinstall the package") from fault
    return found
