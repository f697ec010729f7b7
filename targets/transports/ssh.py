"""Devices reached over SSH: Fabric for ssh_config and jump hosts, Paramiko's channels for everything that is sent."""

import shlex
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from paramiko import Channel, SSHException

from targets.errors import ConnectionLost, DeployError, DeviceTimeout
from targets.records import TargetSpec
from targets.transport import CHUNK_BYTES, STALL_S, Progress, Stream, Transport
from targets.transports.ssh_faults import explain_connecting
from targets.transports.ssh_link import NotConnected, StrictConnection, make_connection

MAX_OUTPUT_BYTES = 1 << 20  # of one command that has at most one line to say
LINK_GONE_S = 2.0  # how long after a channel's end the link may take to show that it is dead too


def command_line(argv: Sequence[str]) -> str:
    """The one place where a remote command line is made: an argument is an argument, whatever is in it."""
    first = argv[0]
    if first.startswith("~/"):  # quoting keeps the shell from expanding it
        argv = ["sh", "-c", 'exec "$HOME/$0" "$@"', first[2:], *argv[1:]]
    return shlex.join(argv)


class SshTransport(Transport):
    """One SSH connection; commands, the agent and file contents travel in channels of it."""

    process = "a program in an SSH session"

    def __init__(self, spec: TargetSpec, state: Path) -> None:
        super().__init__(spec, state)
        self._connection: StrictConnection | None = None

    def _open(self) -> None:
        self._connection = connection = make_connection(self.spec)
        try:
            connection.open()
        except NotConnected as fault:
            connection.close()
            raise explain_connecting(fault.why, fault.connection) from fault.why
        except BaseException:
            connection.close()
            raise

    def _faults(self) -> tuple[type[Exception], ...]:
        return (OSError, EOFError, SSHException)

    def _explain(self, fault: Exception, doing: str) -> DeployError:
        if isinstance(fault, TimeoutError) or (isinstance(fault, OSError) and self._alive()):
            return super()._explain(fault, doing)
        name, why = self.spec.name, str(fault) or type(fault).__name__
        return ConnectionLost(f"{name}: the link was lost while {doing} ({why})", hint="try again")

    def _alive(self) -> bool:
        return bool(self._connection and self._connection.is_connected)

    def _channel(self, argv: Sequence[str]) -> Channel:
        if not self._connection or not self._alive():
            raise ConnectionLost(f"{self.spec.name}: the connection is closed", hint="connect again")
        channel: Channel = self._connection.create_session()
        channel.settimeout(self.spec.connect_timeout_s)
        channel.exec_command(command_line(argv))
        return channel

    def _start(self, argv: Sequence[str]) -> Stream:
        return _ChannelStream(self._channel(argv))

    def _write(self, source: BinaryIO, size_bytes: int, path: str, deadline: float, progress: Progress | None) -> None:
        # cat, because it is everywhere, keeps the link full (SFTP is half as fast) and says why it cannot write.
        argv = ["env", "LC_ALL=C", "sh", "-c", 'exec cat > "$0"', path]
        with self._watched(deadline), self._channel(argv) as channel:
            sent = 0
            try:
                while chunk := source.read(CHUNK_BYTES):
                    channel.settimeout(min(STALL_S, max(0.1, deadline - time.monotonic())))
                    channel.sendall(chunk)
                    sent += len(chunk)
                    if progress:
                        progress(sent, size_bytes)
                channel.shutdown_write()
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise
                message = f"{self.spec.name}: the device took no byte for {STALL_S:g} s"
                raise DeviceTimeout(message, hint="check its storage and its load") from None
            except OSError:
                if not self._alive():
                    raise EOFError from None
            status, stderr = _finish(channel, deadline)
            if status < 0:
                raise EOFError
            if status:
                raise self.refused_in_words(stderr, "sending a file")

    @contextmanager
    def _watched(self, deadline: float) -> Iterator[None]:
        """Cut the connection a little after the deadline, for a write that blocks below paramiko's own time-outs."""
        timer = threading.Timer(max(0.1, deadline - time.monotonic()) + 5, self._close)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def _finish(channel: Channel, deadline: float) -> tuple[int, str]:
    """Wait for a command that prints only its troubles: its status (-1 when the link was lost instead) and stderr."""
    stderr = bytearray()
    channel.settimeout(max(0.1, deadline - time.monotonic()))
    while chunk := channel.recv_stderr(65536):
        stderr += chunk
        if len(stderr) > MAX_OUTPUT_BYTES:
            raise SSHException("too much output")
    if not channel.status_event.wait(max(0.1, deadline - time.monotonic())):
        raise TimeoutError
    return channel.exit_status, stderr.decode("utf-8", "replace")


class _ChannelStream(Stream):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def _send(self, chunk: bytes, timeout_s: float) -> None:
        self._channel.settimeout(timeout_s)
        try:
            self._channel.sendall(chunk)
        except TimeoutError:
            raise
        except OSError as fault:
            raise EOFError from fault  # paramiko: "Socket is closed", whoever closed it

    def _receive(self, timeout_s: float) -> bytes:
        self._channel.settimeout(timeout_s)
        chunk: bytes = self._channel.recv(1 << 20)
        while self._channel.recv_stderr_ready():  # or a chatty agent would fill the window it shares with stdout
            self._keep_errors(self._channel.recv_stderr(65536))
        return chunk

    def exit_status(self) -> int | None:
        self._channel.status_event.wait(LINK_GONE_S)
        while self._channel.recv_stderr_ready():
            self._keep_errors(self._channel.recv_stderr(65536))
        status: int = self._channel.exit_status
        if status >= 0:
            return status
        # -1 means that no status came: the program was killed, or the link is gone, which shows a moment later.
        end = time.monotonic() + LINK_GONE_S
        while time.monotonic() < end and self._linked():
            time.sleep(0.05)
        return status if self._linked() else None

    def _linked(self) -> bool:
        return self._channel.transport is not None and self._channel.transport.is_active()

    def close(self) -> None:
        """Close the agent's stdin and wait for it to leave, so that nothing is running when we say so."""
        if self._linked():
            self._channel.shutdown_write()
            self._channel.status_event.wait(LINK_GONE_S)
        self._channel.close()
