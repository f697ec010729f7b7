"""The services `shell:` and `exec:`: a command line run by the device's shell.

With `shell,v2:` every piece goes with a header saying what it is: output, errors, the exit code, input, or its end.
Source: packages/modules/adb, shell_protocol.h and daemon/shell_service.cpp.
"""

import asyncio
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from targets.lab.adbd.programs import Program, Programs
from targets.lab.adbd.stream import Stream, StreamClosed
from targets.lab.adbd.wire import MAX_PAYLOAD_BYTES, WireError

STDIN, STDOUT, STDERR, EXIT_CODE, CLOSE_STDIN, WINDOW_SIZE = range(6)
_HEADER = struct.Struct("<BI")
_PIECE_BYTES = 64 * 1024
_CANNOT_START = 127  # what a shell says of a program that it cannot run
_SIGNALLED = 128  # added to the number of the signal that ended a program


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a client asked to be run."""

    line: str  # empty: an interactive shell
    split: bool  # shell,v2
    terminal: bool

    @classmethod
    def parse(cls, service: str) -> Self | None:
        """A command from a name such as `shell,v2,TERM=xterm,raw:ls`; None when it is for another service."""
        head, _, line = service.partition(":")
        name, *options = head.split(",")
        if name not in ("shell", "exec"):
            return None
        return cls(line=line, split="v2" in options, terminal="pty" in options)

    def argv(self) -> list[str]:
        inner = ["/bin/sh", *(("-c", self.line) if self.line else ())]
        if not self.terminal:
            return inner
        # A program that knows how to hold a terminal; its size remains unknown.
        return ["script", "--quiet", "--return", "--command", self.line or "exec /bin/sh -i", "/dev/null"]


class Shell:
    """Runs commands in the device's root folder."""

    def __init__(self, programs: Programs, folder: Path, environment: Mapping[str, str]) -> None:
        self._programs = programs
        self._folder = folder
        self._environment = environment

    async def run(self, stream: Stream, command: Command) -> None:
        """Serve one command to its end, or to the stream's; the program never outlives the stream."""
        with ExitStack() as ours, ExitStack() as theirs:
            output, inner_output = _pair(ours, theirs)
            errors, inner_errors = _pair(ours, theirs) if command.split else (None, inner_output)
            try:
                program = self._start(command.argv(), inner_output, inner_errors)
            except OSError as fault:
                await _refuse(stream, command, fault)
                return
            theirs.close()
            tasks = [
                asyncio.create_task(_report(stream, command, program, output, errors)),
                asyncio.create_task(stream.closed.wait()),
                asyncio.create_task(_feed(stream, command, output)),
            ]
            try:
                await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if not program.ended.done():
                    program.hang_up()

    def _start(self, argv: Sequence[str], output: socket.socket, errors: socket.socket) -> Program:
        return self._programs.start(
            argv, folder=self._folder, environment=self._environment, output=output.fileno(), errors=errors.fileno()
        )


def _pair(ours: ExitStack, theirs: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection. The genuine daemon also takes sockets: one end carries input and output."""
    left, right = socket.socketpair()
    left.setblocking(False)
    return ours.enter_context(left), theirs.enter_context(right)


async def _refuse(stream: Stream, command: Command, fault: OSError) -> None:
    said = f"{fault}\n".encode()
    await stream.write(_piece(STDERR, said) + _piece(EXIT_CODE, bytes([_CANNOT_START])) if command.split else said)


async def _report(
    stream: Stream, command: Command, program: Program, output: socket.socket, errors: socket.socket | None
) -> None:
    """Pass on what the program says until all that has its output open is gone, and then how it ended."""
    await asyncio.gather(
        _pass_on(stream, output, STDOUT if command.split else None),
        *([_pass_on(stream, errors, STDERR)] if errors else []),
    )
    code = await asyncio.shield(program.ended)
    if command.split:
        await stream.write(_piece(EXIT_CODE, bytes([code if code >= 0 else _SIGNALLED - code])))


async def _pass_on(stream: Stream, source: socket.socket, kind: int | None) -> None:
    while data := await _receive(source):
        await stream.write(data if kind is None else _piece(kind, data))


async def _receive(source: socket.socket) -> bytes:
    try:
        return await asyncio.get_running_loop().sock_recv(source, _PIECE_BYTES)
    except ConnectionResetError:  # it ended without having read all of its input
        return b""


async def _feed(stream: Stream, command: Command, sink: socket.socket) -> None:
    """Give the program what the client sends; once it does not read any more, throw it away."""
    with suppress(StreamClosed, WireError):
        while True:
            kind, data = await _read_piece(stream) if command.split else (STDIN, await stream.read())
            with suppress(OSError):
                if kind == STDIN:
                    await asyncio.get_running_loop().sock_sendall(sink, data)
                elif kind == CLOSE_STDIN and not command.terminal:  # of a terminal, the client sends the end as a key
                    sink.shutdown(socket.SHUT_WR)


async def _read_piece(stream: Stream) -> tuple[int, bytes]:
    kind, size_bytes = _HEADER.unpack(await stream.read_exactly(_HEADER.size))
    if size_bytes > MAX_PAYLOAD_BYTES:
        stream.close()
        raise WireError(f"a piece of {size_bytes} bytes for a program")
    return kind, await stream.read_exactly(size_bytes)


def _piece(kind: int, data: bytes) -> bytes:
    return _HEADER.pack(kind, len(data)) + data
