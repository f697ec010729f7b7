"""The transports, as data: listing them imports none of them."""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points

from targets.errors import MissingExtra, UsageError
from targets.transport import Transport

TRANSPORTS: Mapping[str, str] = {
    "adb": "targets.transports.adb:AdbTransport",
    "local": "targets.transports.local:LocalTransport",
    "ssh": "targets.transports.ssh:SshTransport",
}
ENTRY_POINT_GROUP = "edge_deploy.transports"


def load_transport(name: str) -> type[Transport]:
    """The transport class of that name; raises UsageError when there is none, MissingExtra when it cannot import."""
    place = TRANSPORTS.get(name)
    if place is None:  # asking for entry points reads a file of every installed package: for each of a fleet's devices
        others = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
        place = others.get(name)
    if place is None:
        known = ", ".join(sorted({*TRANSPORTS, *others}))
        raise UsageError(f"no transport is called {name!r}", hint=f"use one of: {known}")
    module, _, attribute = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError as fault:
        raise MissingExtra(f"transport {name!r} cannot be loaded: {fault}", hint="reinstall the package") from fault
    if not (isinstance(found, type) and issubclass(found, Transport)):
        raise UsageError(f"transport {name!r} ({place}) is not a Transport")
    return found
