"""For which Pythons and processors PyPI has a wheel of a runtime (wheels.json, written by docs/runtime_wheels.py)."""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from targets.records import Facts


def available(runtime: str, facts: Facts) -> str:
    """The newest release of `runtime` that pip could install there, or nothing."""
    wanted = f"{_python(facts.python)}-{facts.arch}"
    for version, built in _read().get(runtime, {}).items():
        for tags, glibc in built.items():
            if tags == wanted and _glibc(facts.libc) >= tuple(glibc):
                return str(version)
    return ""


def _python(version: str) -> str:
    parts = version.split(".")
    return f"cp{parts[0]}{parts[1]}" if len(parts) > 1 else ""


def _glibc(libc: str) -> tuple[int, ...]:
    """(2, 36) of "glibc 2.36"; of another C library, or an unknown one, nothing that a wheel could be for."""
    name, _, version = libc.partition(" ")
    numbers = version.split(".")
    return tuple(map(int, numbers[:2])) if name == "glibc" and all(part.isdigit() for part in numbers[:2]) else ()


@cache
def _read() -> Any:
    return json.loads((files("pipeline.fit") / "wheels.json").read_text(encoding="utf-8"))
