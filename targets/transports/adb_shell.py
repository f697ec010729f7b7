"""A program on a device as the adb server gives it: one connection, whose pieces say what they are (`shell,v2`).

Source: packages/modules/adb, shell_protocol.h.
"""

import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from targets.errors import AgentFailed
from targets.transport import Stream

# Silence that makes us feel the link.
SILENCE_S = 2.0
# The agent kills its child and removes its parts before it exits; a second is plenty, five are for a busy machine.
LEAVE_S = 5.0
_STDIN, _STDOUT, _STDERR, _EXIT_CODE, _CLOSE_STDIN = range(5)
_HEADER = struct.Struct("<BI")
_PIECE_BYTES = 64 << 10
_RECEIVE_BYTES = 1 << 20


class AdbShell(Stream):
    """A line of the device's shell under way; while it is silent, `alive` is asked whether anybody is there."""

    def __init__(self, sock: socket.socket, alive: Callable[[], bool] | None = None) -> None:
        super().__init__()
        self._sock = sock
        self._alive = alive
        self._quick = sock.family != socket.AF_UNIX and hasattr(socket, "TCP_QUICKACK")  # Linux has it
        self._incoming = bytearray()
        self._output = bytearray()
        self._exit_code: int | None = None
        self._over = False
        self._sending = threading.Lock()
        self._closed_stdin = False

    def feed(self, data: bytes) -> None:
        """Give the program its whole input, beside whatever it prints meanwhile."""

        def write() -> None:
            with suppress(OSError, EOFError):  # it does not read to the end, or was ended
                for start in range(0, len(data), _PIECE_BYTES):
                    self._put(_STDIN, data[start : start + _PIECE_BYTES], None)
                self._close_stdin()

        if data:
            threading.Thread(target=write, daemon=True).start()
        else:
            with suppress(OSError):
                self._close_stdin()

    def read_until(self, token: str, deadline: float, limit_bytes: int) -> tuple[int, bytes]:
        """The exit code that stands in a line of this token, and the output before it.

        Raises TimeoutError, EOFError, or AgentFailed for more than the limit.
        """
        mark, lines, size = token.encode(), list[bytes](), 0
        while not (line := self.read_line(deadline, limit_bytes)).startswith(mark):
            lines.append(line)
            size += len(line) + 1
            if size > limit_bytes:
                raise AgentFailed(f"a program on the device printed more than {limit_bytes} bytes")
        return int(line.split()[1]), b"\n".join(lines)  # of an output that ended with a newline, an empty line is left

    def errors_until(self, token: str, deadline: float) -> str:
        """What was said on stderr up to a line of this token; raises TimeoutError or EOFError."""
        mark = token.encode()
        while (at := self._errors.find(mark)) < 0:
            if self._over:
                raise EOFError
            self._pull(deadline)
        said = self._errors[:at].decode("utf-8", "replace").strip()
        del self._errors[: at + len(mark) + 1]
        return said

    def exit_status(self, within_s: float = LEAVE_S) -> int | None:
        """None when the link is gone, or the program does not end."""
        end = time.monotonic() + within_s
        with suppress(TimeoutError, OSError, EOFError):
            while not self._over:
                self._pull(end)
        return self._exit_code

    def close(self, leave_s: float = LEAVE_S) -> None:
        with suppress(OSError, EOFError, TimeoutError):
            self._close_stdin()
            end = time.monotonic() + leave_s
            while not self._over:
                self._pull(end)
        self.kill()

    def kill(self) -> None:
        """Leave it; the device hangs up on the program."""
        self._over = True
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # also for a thread that is writing
        self._sock.close()

    def _send(self, chunk: bytes, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        for start in range(0, len(chunk), _PIECE_BYTES):
            self._put(_STDIN, chunk[start : start + _PIECE_BYTES], end)

    def _close_stdin(self) -> None:
        if not self._closed_stdin:
            self._closed_stdin = True
            self._put(_CLOSE_STDIN, b"", time.monotonic() + LEAVE_S)

    def _put(self, kind: int, data: bytes, end: float | None) -> None:
        """Send one piece whole; raises TimeoutError, OSError, or EOFError when nobody is there any more."""
        with self._sending:
            rest = memoryview(_HEADER.pack(kind, len(data)) + data)
            while rest:
                try:
                    rest = rest[self._sock.send(rest, socket.MSG_DONTWAIT) :]
                except BlockingIOError:
                    left_s = SILENCE_S if end is None else min(SILENCE_S, end - time.monotonic())
                    if select.select([], [self._sock], [], max(0.0, left_s))[1]:
                        continue
                    if end is not None and time.monotonic() >= end:
                        raise TimeoutError from None
                    self._feel()

    def _receive(self, timeout_s: float) -> bytes:
        end = time.monotonic() + timeout_s
        while not self._output and not self._over:
            self._pull(end)
        found, self._output = bytes(self._output), bytearray()
        return found

    def _pull(self, end: float) -> None:
        """Take in what comes next; raises TimeoutError, OSError, or EOFError when nobody is there any more."""
        left_s = end - time.monotonic()
        if self._quick:
            # The server sends pieces as they come, and holds each back until the one before is acknowledged, which
            # the kernel likes to do 40 ms later; it forgets this wish every time.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        if select.select([self._sock], [], [], max(0.0, min(SILENCE_S, left_s)))[0]:
            chunk = self._sock.recv(_RECEIVE_BYTES)
            self._over = not chunk
            self._incoming += chunk
            while (piece := self._piece()) is not None:
                self._take(*piece)
        elif left_s <= SILENCE_S:
            raise TimeoutError
        else:
            self._feel()

    def _take(self, kind: int, data: bytes) -> None:
        if kind == _STDOUT:
            self._output += data
        elif kind == _STDERR:
            self._keep_errors(data)
        elif kind == _EXIT_CODE:
            self._exit_code, self._over = data[0] if data else None, True

    def _piece(self) -> tuple[int, bytes] | None:
        if len(self._incoming) < _HEADER.size:
            return None
        kind, size_bytes = _HEADER.unpack_from(self._incoming)
        end = _HEADER.size + size_bytes
        if len(self._incoming) < end:
            return None
        data = bytes(self._incoming[_HEADER.size : end])
        del self._incoming[:end]
        return kind, data

    def _feel(self) -> None:
        if self._alive is not None and not self._alive():
            raise EOFError
