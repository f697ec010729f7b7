"""What it takes to reach a device: start a program there, write a file there.

A transport's author writes the `_methods`; the public ones wrap them, so that only errors of `targets.errors` escape
and every step has its deadline. The order of a push (temporary name, hash on the device, atomic rename) is kept by
`targets.delivery`, the same for all of them.
"""

import errno
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, ClassVar

from targets.errors import AgentFailed, ConnectionLost, DeployError, DeviceError, DeviceTimeout, DiskFull, ReadOnly
from targets.records import TargetSpec

Progress = Callable[[int, int], None]  # (sent_bytes, total_bytes)

# Two of the packets that OpenSSH takes (32 KiB with 64 bytes of paramiko's own), so that none is nearly empty. Small
# enough that hundreds of devices which are sent to at once cost little memory, and for a progress bar on a slow link.
CHUNK_BYTES = 2 * (32768 - 64)
# An SD card may flush for half a minute before it takes the next byte; a device that takes none for a whole one hangs.
STALL_S = 60.0
STDERR_TAIL_BYTES = 8000

_ERRNO_CLASSES: dict[int, type[DeviceError]] = {
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.EROFS: ReadOnly,
    errno.EACCES: ReadOnly,
    errno.EPERM: ReadOnly,
}
# What C's strerror() says under LC_ALL=C, for programs that can only report in words.
_STRERRORS = {
    "No space left on device": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
    "Permission denied": errno.EACCES,
    "Operation not permitted": errno.EPERM,
}


class Stalled(TimeoutError):
    """The device took no byte for STALL_S."""


class Stream(ABC):
    """A program running on the device, with which lines are exchanged."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._errors = bytearray()

    def read_line(self, deadline: float, limit_bytes: int) -> bytes:
        """One line; raises EOFError when the program ended, TimeoutError after the (monotonic) deadline."""
        searched = 0
        while (end := self._held.find(b"\n", searched)) < 0:
            searched = len(self._held)
            if searched > limit_bytes:
                raise AgentFailed(f"the device sent a line of more than {limit_bytes} bytes")
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            chunk = self._receive(left_s)
            if not chunk:
                raise EOFError
            self._held += chunk
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line

    def stderr_tail(self) -> str:
        return self._errors.decode("utf-8", "replace").strip()

    def _keep_errors(self, chunk: bytes) -> None:
        self._errors += chunk
        del self._errors[:-STDERR_TAIL_BYTES]

    def send(self, chunks: Iterable[bytes], deadline: float) -> None:
        """Send bytes as they are; raises TimeoutError after the deadline, Stalled when the device takes none."""
        for chunk in chunks:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            try:
                self._send(chunk, min(STALL_S, left_s))
            except TimeoutError:
                if left_s <= STALL_S:
                    raise
                raise Stalled from None

    def send_line(self, line: bytes, deadline: float) -> None:
        self._send(line + b"\n", max(0.1, deadline - time.monotonic()))

    @abstractmethod
    def _send(self, chunk: bytes, timeout_s: float) -> None:
        """Send all of it; raises TimeoutError when that takes longer, EOFError or OSError when nobody reads."""

    @abstractmethod
    def _receive(self, timeout_s: float) -> bytes:
        """Some bytes of stdout, empty at its end; raises TimeoutError."""

    @abstractmethod
    def exit_status(self) -> int | None:
        """How the program ended, or None when the link was lost and nobody can know."""

    @abstractmethod
    def close(self) -> None:
        """End the program by closing its stdin; the agent then ends its own child."""


class Transport(ABC):
    """A way to one device."""

    default_root: ClassVar[str] = "~/.edge-deploy"
    process: ClassVar[str] = ""  # what a program of ours is there: apps and services are scheduled otherwise

    def __init__(self, spec: TargetSpec, state: Path) -> None:
        self.spec = spec
        self.state = state

    def context(self) -> dict[str, str]:
        """As a condition of what is measured through it."""
        return {"process": self.process} if self.process else {}

    @property
    def root(self) -> str:
        """The folder on the device; a leading `~` is expanded there, by Python."""
        return self.spec.root or self.default_root

    @property
    def python(self) -> str:
        return self.spec.python or "python3"

    @property
    def has_python(self) -> bool:
        """Whether there is a Python for our agent; else the device is worked by its own shell."""
        return True

    def open(self) -> None:
        with self.guard("connecting"):
            self._open()

    def start(self, argv: Sequence[str]) -> Stream:
        with self.guard(f"starting {argv[0]}"):
            return self._start(argv)

    def write(self, source: BinaryIO, size_bytes: int, path: str, progress: Progress | None = None) -> None:
        """Write a new file on the device under exactly this path; on an error a partial file may stay there."""
        with self.guard("sending a file"):
            self._write(source, size_bytes, path, time.monotonic() + self.spec.step_timeout_s, progress)

    def close(self) -> None:
        """Let go of the device; never raises, whatever state it is in."""
        try:
            self._close()
        except self._faults():
            return

    @contextmanager
    def guard(self, doing: str) -> Iterator[None]:
        """Turn what the transport's library raises into errors of our family."""
        try:
            yield
        except DeployError:
            raise
        except self._faults() as fault:
            raise self._explain(fault, doing) from fault

    def refused(self, code: int, detail: str, doing: str) -> DeviceError:
        """The error for an errno reported by the device."""
        name = self.spec.name
        kind = _ERRNO_CLASSES.get(code, DeviceError)
        if kind is DiskFull:
            return DiskFull(f"{name}: no space left on the device while {doing} ({detail})", hint=self.room_hint())
        if kind is ReadOnly:
            hint = f"make {self.root} writable for the login user, or set `root:` of target {name} to a folder that is"
            return ReadOnly(f"{name}: {self.root} on the device does not take writes ({detail})", hint=hint)
        return AgentFailed(f"{name}: {doing} failed on the device: {detail}")

    def refused_in_words(self, stderr: str, doing: str) -> DeviceError:
        """The same for a program that reports on stderr, run under LC_ALL=C."""
        code = next((code for text, code in _STRERRORS.items() if text in stderr), 0)
        return self.refused(code, stderr.strip().splitlines()[-1] if stderr.strip() else "no reason given", doing)

    def room_hint(self) -> str:
        return f"free space under {self.root} on {self.spec.name}, or set `root:` to a folder on a larger disk"

    def _faults(self) -> tuple[type[Exception], ...]:
        """What the transport's library raises when it fails, besides its own mistakes."""
        return (OSError, EOFError)

    def _explain(self, fault: Exception, doing: str) -> DeployError:
        name = self.spec.name
        if isinstance(fault, TimeoutError):
            hint = f"raise `step_timeout_s` of target {name} if the device is merely slow"
            return DeviceTimeout(f"{name}: {doing} took longer than {self.spec.step_timeout_s:g} s", hint=hint)
        if isinstance(fault, (EOFError, BrokenPipeError, ConnectionError)):
            return ConnectionLost(f"{name}: the link was lost while {doing}", hint="try again")
        return self.refused(getattr(fault, "errno", 0) or 0, str(fault) or type(fault).__name__, doing)

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _start(self, argv: Sequence[str]) -> Stream: ...

    @abstractmethod
    def _write(
        self, source: BinaryIO, size_bytes: int, path: str, deadline: float, progress: Progress | None
    ) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...
