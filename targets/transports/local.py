"""This host as a device: the same agent, run as a child process in a folder of its own."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from targets.errors import NoPython
from targets.transport import CHUNK_BYTES, Progress, Stream, Transport

# The agent kills its child and removes its parts before it exits; a second is plenty, five are for a busy machine.
LEAVE_S = 5.0


class LocalTransport(Transport):
    """Runs the agent on this machine, so that everything but the network is as on a real device."""

    @property
    def root(self) -> str:
        return self.spec.root or str((self.state / "local-device").absolute())

    @property
    def python(self) -> str:
        return str(Path(self.spec.python).expanduser()) if self.spec.python else sys.executable

    def _open(self) -> None:
        pass

    def _start(self, argv: Sequence[str]) -> Stream:
        return _ProcessStream(self._spawn(argv))

    def _spawn(self, argv: Sequence[str]) -> "subprocess.Popen[bytes]":
        # In a session of its own, so that Ctrl-C in the terminal reaches only us and we end it in order.
        pipe = subprocess.PIPE
        try:
            return subprocess.Popen(list(argv), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        except (FileNotFoundError, PermissionError) as fault:
            hint = f"correct `python:` of target {self.spec.name}"
            raise NoPython(f"{self.spec.name}: {argv[0]} cannot be run: {fault.strerror}", hint=hint) from fault

    def _write(self, source: BinaryIO, size_bytes: int, path: str, deadline: float, progress: Progress | None) -> None:
        sent = 0
        with Path(path).open("wb") as file:
            while chunk := source.read(CHUNK_BYTES):
                file.write(chunk)
                sent += len(chunk)
                if progress:
                    progress(sent, size_bytes)
                if time.monotonic() > deadline:
                    raise TimeoutError

    def _close(self) -> None:
        pass


class _ProcessStream(Stream):
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        super().__init__()
        assert process.stdin and process.stdout and process.stderr
        self._process = process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._listening = {self._stdout.fileno(), self._stderr.fileno()}

    def send_line(self, line: bytes, deadline: float) -> None:
        self._stdin.write(line + b"\n")
        self._stdin.flush()

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

    def close(self) -> None:
        with suppress(BrokenPipeError):  # it is gone already
            self._stdin.close()
        try:
            self._process.wait(timeout=LEAVE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel then ends its benchmark child (PR_SET_PDEATHSIG)
            self._process.wait()
        finally:
            self._stdout.close()
            self._stderr.close()
