"""Loading `"module:attribute"` strings: the tables of recipes, exporters, runtimes are data until one is used."""

import importlib
from importlib import metadata
from typing import Any


def load_plugin(reference: str) -> Any:
    """Import the module of `"module:attribute"` and return the attribute."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def with_entry_points(table: dict[str, str], group: str) -> dict[str, str]:
    """The built-in table and what third parties registered under the entry-point `group`; built-in names win."""
    found = {point.name: point.value for point in metadata.entry_points(group=group)}
    return {**found, **table}


def versions(*distributions: str) -> dict[str, str]:
    """Installed versions, without importing anything; a distribution that is not installed is left out."""
    found: dict[str, str] = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
