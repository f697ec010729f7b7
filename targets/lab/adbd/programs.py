"""Programs that run on the device, and the collecting of whatever ends there.

Not asyncio's subprocesses: as the first process of its namespace the daemon is also the parent of every orphan.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from targets.lab import namespaces as ns

# From the hang-up that a program may react to until its end; a shell's clean-up takes milliseconds.
_GRACE_S = 0.5


class Program:
    """A program with a session of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def signal(self, number: int) -> None:
        """To the program and what it has started, except for what has left its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def hang_up(self) -> None:
        """Its terminal is gone, as the genuine daemon says it; unlike there it must also end."""
        self.signal(signal.SIGHUP)
        asyncio.get_running_loop().call_later(_GRACE_S, self.signal, signal.SIGKILL)


class Programs:
    """All programs of the daemon. `collect` must be called on SIGCHLD."""

    def __init__(self) -> None:
        self._running: dict[int, Program] = {}

    def start(
        self,
        argv: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        output: int,
        errors: int,
    ) -> Program:
        """Start a program; `output` is a socket that is also its standard input. Raises OSError."""
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=output,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            # A daemon that is killed takes them along; there are no threads here. The first process of a namespace
            # does so by itself, and without a function of Python's a start takes half the time.
            preexec_fn=None if os.getpid() == 1 else ns.end_with_parent,
        )
        process.returncode = 0  # `collect` learns it, and subprocess must not look for it
        program = self._running[process.pid] = Program(process.pid)
        return program

    def collect(self) -> None:
        """Take notice of everything that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            program = self._running.pop(pid, None)
            if program and not program.ended.done():
                program.ended.set_result(os.waitstatus_to_exitcode(status))

    def kill_all(self) -> None:
        for program in self._running.values():
            program.signal(signal.SIGKILL)
