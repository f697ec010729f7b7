"""Where the packed file begins: the agent, or the child that measures for it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

TYPE_CHECKING = False  # see `wire`
if TYPE_CHECKING:
    from typing import BinaryIO


def take_stdout() -> BinaryIO:
    """Keep stdout for replies alone: whatever a library prints goes to stderr from here on."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def main(argv: list[str]) -> None:
    replies = take_stdout()
    # Each process imports its own half only: on a small board each module costs.
    if argv[1:] == ["--bench"]:
        from .child import bench_child

        bench_child(replies)
        return
    from .agent import Agent
    from .wire import Link

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `serve` still cleans up
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
    program = Path(argv[0]).resolve()
    if program.parent == Path(argv[1]).resolve() / "agent" and not program.stem.partition(".")[2]:
        from .compiled import write_compiled

        write_compiled(program)
    Agent(Path(argv[1]), Link(0, replies), program).serve()
    sys.stderr.flush()
    os._exit(0)  # all is written and removed; taking the interpreter apart would cost a tenth of the whole session
