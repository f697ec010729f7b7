"""List the benchmarks."""

import ast
import pkgutil
from importlib.util import find_spec
from pathlib import Path

import benchmarks

SHARED = ("__main__", "fleet_peer", "fleet_recalibrated", "fleet_release", "pairs")


def listed() -> list[tuple[str, str]]:
    """Name and first docstring line of every benchmark; imports none of them."""
    rows = []
    for module in pkgutil.iter_modules(benchmarks.__path__):
        found = find_spec(f"benchmarks.{module.name}")
        if module.name in SHARED or found is None or found.origin is None:
            continue
        docstring = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
        rows.append((module.name, docstring.partition("\n")[0]))
    return rows


if __name__ == "__main__":
    for name, line in listed():
        print(f"python -m benchmarks.{name:<10} {line}")
