"""Does each installed runtime live here? Imported in a process of its own, for a wrong build ends it by a signal."""

from __future__ import annotations

import signal
import subprocess
import sys

from .facts import MODULES, distributions

IMPORT_S = 60.0  # numpy and a runtime on an emulated 32-bit board take 12 s


def try_runtimes() -> dict[str, str]:
    """Distribution name to what went wrong; empty text: it was imported."""
    return {name: attempt(MODULES[name]) for name in distributions(MODULES)}


def attempt(module: str) -> str:
    code = "import importlib, sys; importlib.import_module(sys.argv[1])"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, module],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            timeout=IMPORT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "not imported within %.0f s" % IMPORT_S
    if done.returncode < 0:
        try:
            return "importing it ends with %s" % signal.Signals(-done.returncode).name
        except ValueError:
            return "importing it ends with signal %d" % -done.returncode
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return (lines[-1][:300] if lines else "exit status %d" % done.returncode) if done.returncode else ""
