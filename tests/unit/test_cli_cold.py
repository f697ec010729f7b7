"""Looking at the command line must not load what only running it needs: exact, where a time would only be likely."""

import subprocess
import sys

import pytest

_HEAVY = frozenset(
    {"fabric", "numpy", "onnx", "onnxruntime", "paramiko", "pydantic", "rich", "tensorflow", "torch"},
)
_AS_THE_SCRIPT_DOES = "from pipeline.cli.main import main; main()"


def imported(*arguments: str) -> dict[str, str]:
    """Each top-level package that `deploy ARGUMENTS` imports, and our module whose import brought it in."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", _AS_THE_SCRIPT_DOES, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line.rpartition("|")[2][1:] for line in done.stderr.splitlines() if line.startswith("import time:")]
    found: dict[str, str] = {}
    importers: list[tuple[int, str]] = []
    # An import is printed after those it caused, which are indented deeper: read backwards, parents come first.
    for line in reversed(lines):
        name, depth = line.strip(), len(line) - len(line.lstrip())
        while importers and importers[-1][0] >= depth:
            importers.pop()
        ours = [parent for _, parent in importers if parent.split(".")[0] in ("pipeline", "targets")]
        found.setdefault(name.split(".")[0], ours[-1] if ours else "")
        importers.append((depth, name))
    return found


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("--version",), ("run", "--help"), ("lab", "up", "--help"), ("check", "--help"), ("fit", "--help")],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(arguments: tuple[str, ...]) -> None:
    found = imported(*arguments)
    assert "click" in found  # else nothing was read
    guilty = {package: module for package, module in found.items() if package in _HEAVY}
    assert not guilty, f"package -> the module that imports it: {guilty}"


def test_the_importer_is_named() -> None:
    """The reading above would pass on anything if it could not tell who imports what."""
    assert imported("schema", "config")["pydantic"].startswith("pipeline.")
