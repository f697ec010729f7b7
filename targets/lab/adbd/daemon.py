"""The daemon itself: it listens, knows who may come in, and what services there are."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targets.lab.adbd.auth import key_of
from targets.lab.adbd.connection import Connection
from targets.lab.adbd.programs import Programs
from targets.lab.adbd.properties import BANNER_PROPERTIES, install_commands, read_properties
from targets.lab.adbd.shell import Command, Shell
from targets.lab.adbd.state import AdbdState, StateFile
from targets.lab.adbd.stream import Stream
from targets.lab.adbd.sync import SyncSession

PORT = 5555
# What is implemented, no more: the client asks for what is named here.
FEATURES = ("shell_v2", "stat_v2", "ls_v2", "fixed_push_mkdir", "fixed_push_symlink_timestamp")
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FAREWELL_S = 0.05  # for the answer to `adb reboot` to get out

Service = Callable[[Stream], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a daemon is started."""

    root: Path  # where device paths begin, and where its shell starts
    host: str = "127.0.0.1"
    port: int = PORT  # 0: any, named on standard output
    state: Path | None = None  # see `AdbdState`; its folder is what must be visible, for the file is replaced
    properties: Path | None = None  # NAME=VALUE lines
    commands: Path | None = None  # folder to put `getprop` and `setprop` in; needs `properties`


class Daemon:
    """One device. Everything happens in one thread."""

    def __init__(self, options: Options) -> None:
        self.rebooting = asyncio.Event()
        self._options = options
        self._states = StateFile(options.state)
        self._connections: dict[Connection, asyncio.Task[None]] = {}
        self._cut_left_bytes = 0
        self._remembered: set[str] = set()  # keys that the user has allowed
        self.programs = Programs()
        self._shell = Shell(self.programs, options.root, _environment(options))

    @property
    def state(self) -> AdbdState:
        return self._states.current

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.refresh()
        connection = Connection(self, reader, writer)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._connections.pop(connection))

    def refresh(self) -> None:
        """Take up a new state, if there is one; a file that is none changes nothing."""
        try:
            if not self._states.refresh():
                return
        except (OSError, ValueError) as fault:
            print(f"adbd: {self._options.state}: {fault}", file=sys.stderr, flush=True)
            return
        self._cut_left_bytes = self.state.cut_after_bytes
        self._remembered = {key for key in self._remembered if self.state.permits(key)}
        for connection in tuple(self._connections):
            connection.reconsider()

    def room_bytes(self, most_bytes: int) -> int:
        """How much may be read at once so that the cut comes at its exact byte."""
        return min(self._cut_left_bytes or most_bytes, most_bytes)

    def passed(self, size_bytes: int) -> None:
        """So much has come or gone; the cut that waits for it happens."""
        if self._cut_left_bytes:
            self._cut_left_bytes = max(0, self._cut_left_bytes - size_bytes)
            if not self._cut_left_bytes:
                self.cut()

    def cut(self) -> None:
        """Reset every connection."""
        for connection in tuple(self._connections):
            connection.abort()

    def known_keys(self) -> list[str]:
        """Keys whose owners need not ask."""
        return list(dict.fromkeys([*map(key_of, self.state.authorized_keys), *self._remembered]))

    def remember(self, key: str) -> None:
        self._remembered.add(key)

    def banner(self) -> bytes:
        """What the client is told about the device."""
        try:
            properties = read_properties(self._options.properties)
        except OSError:
            properties = {}
        named = [f"{name}={properties.get(name, '')}" for name in BANNER_PROPERTIES]
        return f"device::{';'.join([*named, 'features=' + ','.join(FEATURES)])}".encode()

    def service(self, name: str) -> Service | None:
        """What an OPEN asks for; None for what this device does not have."""
        command = Command.parse(name)
        if command:
            return lambda stream: self._shell.run(stream, command)
        if name == "sync:":
            return lambda stream: SyncSession(stream, self._options.root).run()
        if name.startswith("reboot:"):
            return self._reboot
        return None

    async def _reboot(self, stream: Stream) -> None:
        """The client waits for the end of the stream, then the device is gone."""
        stream.close()
        self.rebooting.set()


def _environment(options: Options) -> dict[str, str]:
    path = os.environ.get("PATH", _SEARCH_PATH)
    first = f"{options.commands.resolve()}:" if options.commands else ""
    return {**os.environ, "PATH": f"{first}{path}", "HOME": str(options.root)}


async def serve(options: Options) -> None:
    """Be a device until it is rebooted or this process gets SIGTERM. Raises OSError when it cannot listen.

    The process must be the daemon's own: every child that ends is collected.
    """
    if options.commands and options.properties:
        install_commands(options.commands, options.properties.resolve())
    daemon = Daemon(options)
    daemon.refresh()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, daemon.programs.collect)
    loop.add_signal_handler(signal.SIGHUP, daemon.refresh)
    # By default, a signal does nothing to the first process of a namespace.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.rebooting.set)
    server = await asyncio.start_server(daemon.accept, options.host, options.port)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    try:
        await daemon.rebooting.wait()
        await asyncio.sleep(_FAREWELL_S)
    finally:
        server.close()
        daemon.cut()
        daemon.programs.kill_all()
