"""Ask PyPI, through pip, which wheels the runtimes have, and write pipeline/fit/wheels.json.

    python docs/runtime_wheels.py

One look at each project's page. Kept are the newest release and, for each Python and processor that it has no wheel
for, the newest one that has: what `pip install` would take there.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "pipeline" / "fit" / "wheels.json"
RUNTIMES = ("ai-edge-litert", "tflite-runtime", "onnxruntime")
_MACHINES = ("x86_64", "aarch64", "armv7l")
# manylinux2014 and its elders by their glibc, https://peps.python.org/pep-0600/
_OLD_TAGS = {"manylinux2014": (2, 17), "manylinux2010": (2, 12), "manylinux1": (2, 5)}
_WHEEL = re.compile(r"([A-Za-z0-9_]+)-(\d[0-9.]*(?:\.post\d+)?)-(cp3\d+)-[A-Za-z0-9_]+-([A-Za-z0-9_.]+)\.whl")


def asked(name: str) -> str:
    """What pip says of every file of the project."""
    command = [sys.executable, "-m", "pip", "install", "-vvv", "--no-deps", "--dry-run", "--ignore-installed", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def glibc_of(platforms: str) -> dict[str, tuple[int, ...]]:
    """Processor -> the oldest glibc that a wheel's platform tags take."""
    found: dict[str, tuple[int, ...]] = {}
    for tag in platforms.split("."):
        for machine in _MACHINES:
            if not tag.endswith(f"_{machine}"):
                continue
            kind = tag.removesuffix(f"_{machine}")
            numbers = re.fullmatch(r"manylinux_(\d+)_(\d+)", kind)
            glibc = tuple(map(int, numbers.groups())) if numbers else _OLD_TAGS.get(kind)
            if glibc:
                found[machine] = min(glibc, found.get(machine, glibc))
    return found


def newest(said: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """Version -> "cp311-aarch64" -> glibc, of the releases that pip would take somewhere; the newest first."""
    wheels = {match.groups()[1:] for match in _WHEEL.finditer(said)}
    ordered = sorted(wheels, key=lambda wheel: tuple(map(int, re.findall(r"\d+", wheel[0]))), reverse=True)
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    seen: set[str] = set()
    by_version: dict[str, list[tuple[str, str]]] = {}
    for version, python, platforms in ordered:
        by_version.setdefault(version, []).append((python, platforms))
    for version, built in by_version.items():
        fresh = {
            f"{python}-{machine}": glibc
            for python, platforms in sorted(built)
            for machine, glibc in glibc_of(platforms).items()
            if f"{python}-{machine}" not in seen
        }
        seen |= set(fresh)
        if fresh:
            found[version] = fresh
    return found


def main() -> None:
    table = {name: newest(asked(name)) for name in RUNTIMES}
    OUT.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
