"""Android's fixed-performance mode while a benchmark runs: clocks that the phone can hold, instead of boosts it cannot.

Since Android 11, where the maker's power HAL has it. Nobody can ask whether it is on; it ends with a restart, and here
with the session, even one whose host has died.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from targets.devices.shell_session import ShellSession
from targets.errors import DeployError

_COMMAND = "cmd power set-fixed-performance-mode-enabled"
# `cmd` ends with 255 where the HAL does not know the mode, and with other codes where there is no such command at all.
_SET = f"{_COMMAND} true 2>&1 && echo on"
_LIMIT_WORDS = 160


@contextmanager
def fixed_performance(session: ShellSession, wanted: bool) -> Iterator[dict[str, str]]:
    """The conditions to note: that it was on, or why not; none when nobody asked for it."""
    if not wanted:
        yield {}
        return
    session.undo_at_end(f"{_COMMAND} false")
    lines = session.script(f"{{ {_SET}; }}; true", doing="setting fixed-performance mode").strip().splitlines()
    try:
        said = "on" if lines[-1:] == ["on"] else f"refused: {' '.join(lines)[:_LIMIT_WORDS] or 'without a word'}"
        yield {"fixed_performance_mode": said}
    finally:
        if not session.over:
            with suppress(DeployError):  # else the end of the session does it
                session.undo()
