"""Setting the frequency governor for a benchmark, and setting it back, also after a crash.

ROOT/governor.json   what it was, while it is changed; whoever comes next puts it back
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Iterator

from .files import flush, read_text
from .wire import Refused

FOLDER = "/sys/devices/system/cpu/cpufreq"
RECORD = "governor.json"


@contextlib.contextmanager
def governed(root: Path, wanted: str, folder: str = FOLDER) -> Iterator[None]:
    """The governor as wanted on every cluster; refused when this user may not set it, or the kernel has no such."""
    if not wanted:
        yield
        return
    before = {str(path): read_text(str(path)) for path in sorted(Path(folder).glob("policy*/scaling_governor"))}
    if not before:
        raise Refused("agent", "this device has no governor to set")
    note = root / RECORD
    part = root / (RECORD + ".part")
    part.write_text(json.dumps(before), encoding="utf-8")
    flush(part)
    part.replace(note)  # first the note, then the change: a crash between them restores what is already so
    try:
        for path in before:
            set_to(path, wanted)
        yield
    finally:
        restore(root)


def restore(root: Path) -> bool:
    """Put back what an earlier benchmark changed and could not; whether there was anything."""
    note = root / RECORD
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    for path, governor in before.items():
        with contextlib.suppress(Refused):
            set_to(str(path), str(governor))
    with contextlib.suppress(FileNotFoundError):
        note.unlink()
    return True


def set_to(path: str, governor: str) -> None:
    if os.path.basename(path) != "scaling_governor":  # noqa: PTH119 (a note is a file; nothing else is written by it)
        raise Refused("agent", "not a governor: %s" % path)
    try:
        with open(path, "w", encoding="ascii") as file:  # noqa: PTH123
            file.write(governor)
    except OSError as fault:
        known = read_text(str(Path(path).with_name("scaling_available_governors")))
        raise Refused(
            "agent",
            "the governor cannot be set to %s: %s (available: %s); only root may"
            % (governor, fault.strerror, known or "unknown"),
        ) from None
