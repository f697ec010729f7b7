"""The genuine `adb` program as a subprocess. adb itself knows no time limit: here every call has one.

A server that runs already is used as it is and never ended, whoever else uses it; one is started only where none runs.
Files, connections and pairing go through the program; looks at the devices and lines of a device's shell are asked of
the same server without starting it (`targets.transports.adb_server`), for a process costs more than the answer.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache

from targets.errors import EnvironmentFault
from targets.transports.adb_server import ANSWER_S, ask, open_service, served_version, server_place

_START_S = 15.0  # a busy machine takes a second for a new server
_SHELL_S = 10.0  # a device starts a shell within two round trips; on a bad link of a second each
_starting = threading.Lock()  # twenty devices at once must not start twenty servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one call of adb came to. Its exit code is no proof: `adb connect` ends with 0 when it was refused."""

    code: int
    text: str  # stdout and stderr, in the order they came


class AdbClient:
    """Calls of `adb` about one target."""

    def __init__(self, target: str) -> None:
        """Raises EnvironmentFault when there is no adb, or its server cannot be used."""
        self.target = target
        found = shutil.which("adb")
        if found is None:
            hint = "apt-get install --no-install-recommends adb, or put Android's platform-tools on the PATH"
            raise EnvironmentFault(f"{target}: there is no program `adb` on this machine", hint=hint)
        self._program = found
        place = server_place(os.environ)
        if place is None:
            hint = "set ANDROID_ADB_SERVER_PORT, or ADB_SERVER_SOCKET to tcp:HOST:PORT or localfilesystem:PATH"
            raise EnvironmentFault(f"{target}: where the adb server is cannot be understood", hint=hint)
        self._place = place
        self._ensure_server()

    def spawn(self, *arguments: str, **options: object) -> "subprocess.Popen[bytes]":
        """A call in a session of its own: Ctrl-C reaches only us, and its whole process group can be ended."""
        pipe = subprocess.PIPE
        settings: dict[str, object] = {"stdin": pipe, "stdout": pipe, "stderr": pipe, **options}
        return subprocess.Popen([self._program, *arguments], start_new_session=True, **settings)  # type: ignore[call-overload,no-any-return]

    @contextmanager
    def running(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A call that is under way, its output in one pipe; ended with the block."""
        process = self.spawn(*arguments, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            end(process)

    def call(self, *arguments: str, limit_s: float) -> Said:
        """One call to its end; raises TimeoutError after the limit."""
        with self.running(*arguments) as process:
            try:
                text = process.communicate(timeout=limit_s)[0]
            except subprocess.TimeoutExpired:
                raise TimeoutError from None
            return Said(code=process.returncode, text=text.decode("utf-8", "replace").strip())

    def states(self) -> Mapping[str, str]:
        """What the server thinks of each device it knows: serial to `device`, `offline`, `no permissions …`."""
        try:
            said = ask(self._place, "host:devices")
        except TimeoutError:
            raise self._unusable(f"it has not answered within {ANSWER_S:g} s") from None
        except OSError as fault:
            raise self._unusable(str(fault)) from None
        rows = (line.split("\t", 1) for line in said.splitlines() if "\t" in line)
        return {serial: state.strip() for serial, state in rows}

    def shell(self, serial: str, line: str, limit_s: float = _SHELL_S) -> socket.socket:
        """A connection to a line of the device's shell, its pieces apart; raises ServerRefused or OSError."""
        return open_service(self._place, serial, f"shell,v2,raw:{line}", limit_s)

    def _ensure_server(self) -> None:
        with _starting:
            served = served_version(self._place)
            if served is None:
                said = self.call("start-server", limit_s=_START_S)
                if said.code:
                    raise self._unusable(said.text)
                return
        ours = _own_version(self._program)
        if served != ours:  # adb would end the server, and with it everybody's connections
            hint = "use the adb that started it (first on the PATH), or another port: ANDROID_ADB_SERVER_PORT"
            what = f"the adb server at {self._place} has version {served}, this adb ({self._program}) {ours}"
            raise EnvironmentFault(f"{self.target}: {what}", hint=hint)

    def _unusable(self, why: str) -> EnvironmentFault:
        hint = "see `adb devices`; if nobody else needs the server: adb kill-server"
        return EnvironmentFault(f"{self.target}: the adb server cannot be used: {why}", hint=hint)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a call with everything that it has started, and let go of its pipes."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None and not pipe.closed:
            with suppress(BrokenPipeError):
                pipe.close()


@cache
def _own_version(program: str) -> int:
    done = subprocess.run([program, "version"], capture_output=True, text=True, timeout=_START_S, check=False)
    found = re.search(r"version 1\.0\.(\d+)", done.stdout)
    return int(found.group(1)) if found else 0
