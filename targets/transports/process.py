"""A child process of this machine as a stream, for transports that have one."""

import os
import select
import signal
import subprocess
import time
from contextlib import suppress

from targets.transport import Stream

# The agent kills its child and removes its parts before it exits; a second is plenty, five are for a busy machine.
LEAVE_S = 5.0


class ProcessStream(Stream):
    """A program of this machine in a session of its own: the agent itself, or a client that stands for one."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        super().__init__()
        assert process.stdin and process.stdout and process.stderr
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._listening = {self._stdout.fileno(), self._stderr.fileno()}

    def _send(self, chunk: bytes, timeout_s: float) -> None:
        fd, end, rest = self._stdin.fileno(), time.monotonic() + timeout_s, memoryview(chunk)
        os.set_blocking(fd, False)
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:
                if not self._writable(fd, end - time.monotonic()):
                    raise TimeoutError from None

    def _writable(self, fd: int, timeout_s: float) -> bool:
        return bool(select.select([], [fd], [], max(0.0, timeout_s))[1])

    def _receive(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while ready := select.select(self._listening, [], [], max(0.0, deadline - time.monotonic()))[0]:
            errors = self._stderr.fileno()
            if errors in ready:
                chunk = os.read(errors, 65536)
                self._keep_errors(chunk)
                if not chunk:
                    self._listening.discard(errors)
            if self._stdout.fileno() in ready:
                return os.read(self._stdout.fileno(), 1 << 20)
        raise TimeoutError

    def exit_status(self) -> int | None:
        try:
            status = self._process.wait(timeout=LEAVE_S)
        except subprocess.TimeoutExpired:
            return None
        while self._stderr.fileno() in self._listening:
            chunk = os.read(self._stderr.fileno(), 65536)
            self._keep_errors(chunk)
            if not chunk:
                break
        return status

    def close(self, leave_s: float = LEAVE_S) -> None:
        with suppress(BrokenPipeError):  # it is gone already
            self._stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=leave_s)
        self.kill()

    def kill(self) -> None:
        """End it here and now, with what it has started; the kernel ends the agent's benchmark (PR_SET_PDEATHSIG)."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()
        self._stderr.close()
