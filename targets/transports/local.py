"""This host as a device: the same agent, run as a child process in a folder of its own."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from targets.errors import NoPython
from targets.transport import CHUNK_BYTES, Progress, Stream, Transport
from targets.transports.process import ProcessStream


class LocalTransport(Transport):
    """Runs the agent on this machine, so that everything but the network is as on a real device."""

    process = "a child of deploy"

    @property
    def root(self) -> str:
        return self.spec.root or str((self.state / "local-device").absolute())

    @property
    def python(self) -> str:
        return str(Path(self.spec.python).expanduser()) if self.spec.python else sys.executable

    def _open(self) -> None:
        pass

    def _start(self, argv: Sequence[str]) -> Stream:
        return ProcessStream(self._spawn(argv))

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
