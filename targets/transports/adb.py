"""Devices reached over adb: phones, and boards whose Linux has an adb daemon.

What runs on a device runs in `adb shell`, files go by `adb push`. One `adb shell` more is the pulse: it echoes what it
is sent, so that silence on a dead link is told from a device that takes its time.
"""

import os
import re
import select
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, ClassVar

from targets.errors import ConnectionLost, DeployError, DeviceTimeout
from targets.records import TargetSpec
from targets.transport import CHUNK_BYTES, STALL_S, STDERR_TAIL_BYTES, Progress, Stream, Transport
from targets.transports.adb_attach import attach
from targets.transports.adb_client import AdbClient, end
from targets.transports.process import ProcessStream

# Silence that makes us feel the pulse, and how long it may take: the packets of a push before it must leave first.
SILENCE_S = 2.0
PULSE_S = 4.0
_FIRST_PULSE_S = 3.0  # before a connection that the server believes in is made anew; a shell starts in 0.05 s
_LEAVE_S = 1.0  # for an adb client whose device is there

# Ends a program with all that it has started, by the pid of its shell: adbd gives each a session of its own, while
# `timeout` makes process groups. Not by `pkill`, whose number of a signal toybox does not understand beside `-s`.
END_PROGRAM = """
{ read -r shell <"$1" && rm -f "$1" && kill -9 $(pgrep -s "$shell") || kill -9 "-$shell"; } 2>/dev/null
"""

# Reads a line, echoes it, and when the lines end (the host, the link or the server is gone) removes what it was told
# to: the session's own folder, after ending the programs that were started there. HUP is what adbd sends then.
_PULSE = (
    f"end_program() {{{END_PROGRAM}}}"
    """
trap : HUP INT TERM
folder=
while read -r word rest; do
  [ "$word" != own ] || { folder=$rest; echo $$ >"$folder/session"; }
  echo "$word"
done
[ -n "$folder" ] || exit 0
for file in "$folder"/*.pid; do end_program "$file"; done
rm -rf "$folder"
"""
)


class AdbTransport(Transport):
    """One device of the adb server."""

    default_root: ClassVar[str] = "/data/local/tmp/edge-deploy"
    process = "a program of adb's shell"

    def __init__(self, spec: TargetSpec, state: Path) -> None:
        super().__init__(spec, state)
        self._client: AdbClient | None = None
        self._pulse: ProcessStream | None = None
        self._serial = ""
        self._trouble = ""  # what was said instead of the first beat

    @property
    def has_python(self) -> bool:
        return bool(self.spec.python)

    def own(self, folder: str) -> None:
        """Have a folder on the device removed when this connection ends, however it ends."""
        assert self._pulse
        with self.guard("preparing its folder"):
            self._pulse.send_line(b"own " + os.fsencode(folder), 0)
            if self._pulse.read_line(time.monotonic() + self.spec.connect_timeout_s, 100) != b"own":
                raise EOFError

    def alive(self) -> bool:
        """Whether the device answers; once it has not, this connection never will."""
        pulse = self._pulse
        if pulse is None:
            return False
        try:
            pulse.send_line(b"beat", 0)
            if pulse.read_line(time.monotonic() + PULSE_S, 100) == b"beat":
                return True
        except (OSError, EOFError):
            pass
        self._pulse = None
        pulse.kill()
        return False

    def shell(self, line: str) -> "AdbStream":
        """Run a line of the device's shell."""
        with self.guard("starting a program"):
            return self._shell(line)

    def _shell(self, line: str) -> "AdbStream":
        if self._client is None or self._pulse is None:
            raise ConnectionLost(f"{self.spec.name}: the connection is closed", hint="connect again")
        return AdbStream(self._client.spawn("-s", self._serial, "shell", line), self)

    def _open(self) -> None:
        self._client = AdbClient(self.spec.name)
        self._serial = attach(self._client, self.spec)
        if not self._begin(min(_FIRST_PULSE_S, self.spec.connect_timeout_s)):
            self._serial = attach(self._client, self.spec, anew=True)
            if not self._begin(self.spec.connect_timeout_s):
                hint = "check that the phone is on and awake, and its link"
                why = f" ({self._trouble})" if self._trouble else ""
                raise ConnectionLost(
                    f"{self.spec.name}: {self._serial} is attached but does not answer{why}", hint=hint
                )

    def _begin(self, limit_s: float) -> bool:
        assert self._client
        pulse = ProcessStream(self._client.spawn("-s", self._serial, "shell", _PULSE))
        with suppress(OSError, EOFError):
            pulse.send_line(b"begin", 0)
            if pulse.read_line(time.monotonic() + limit_s, 1000) == b"begin":
                self._pulse = pulse
                return True
        self._trouble = pulse.stderr_tail()
        pulse.kill()
        return False

    def _start(self, argv: Sequence[str]) -> Stream:
        return self._shell("exec " + shlex.join(argv))

    def _write(self, source: BinaryIO, size_bytes: int, path: str, deadline: float, progress: Progress | None) -> None:
        with ExitStack() as stack:
            local = getattr(source, "name", None)
            if not isinstance(local, str):  # adb reads files only
                copy = stack.enter_context(tempfile.NamedTemporaryFile())
                while chunk := source.read(CHUNK_BYTES):
                    copy.write(chunk)
                copy.flush()
                local = copy.name
            if self._client is None or self._pulse is None:
                raise ConnectionLost(f"{self.spec.name}: the connection is closed", hint="connect again")
            # Only for a terminal does adb say how far it is.
            terminal, theirs = os.openpty()
            stack.callback(os.close, terminal)
            try:
                command = ("-s", self._serial, "push", local, path)
                quiet = {"stdin": subprocess.DEVNULL, "stdout": theirs, "stderr": theirs}
                push = self._client.spawn(*command, **quiet, env={**os.environ, "TERM": "xterm"})
            finally:
                os.close(theirs)
            stack.callback(end, push)
            said = self._follow(terminal, size_bytes, deadline, progress)
            if push.wait(max(0.1, deadline - time.monotonic())):
                self._explain_push(said)
        if progress:
            progress(size_bytes, size_bytes)

    def _follow(self, terminal: int, size_bytes: int, deadline: float, progress: Progress | None) -> str:
        """What a push says until its end; raises TimeoutError, DeviceTimeout or, for a dead link, EOFError."""
        said, percent, moved = b"", 0, time.monotonic()
        while True:
            if not select.select([terminal], [], [], SILENCE_S)[0]:
                if not self.alive():
                    raise EOFError
                if time.monotonic() > moved + STALL_S:
                    message = f"{self.spec.name}: the device took no byte for {STALL_S:g} s"
                    raise DeviceTimeout(message, hint="check its storage and its load")
            else:
                try:
                    said = (said + os.read(terminal, 65536))[-STDERR_TAIL_BYTES:]
                except OSError:  # Linux says EIO when the other side is gone
                    return said.decode("utf-8", "replace")
                moved = time.monotonic()
                found = re.findall(rb"\[ *(\d+)%\]", said)
                if progress and found and percent < int(found[-1]) < 100:
                    percent = int(found[-1])
                    progress(size_bytes * percent // 100, size_bytes)
            if time.monotonic() > deadline:
                raise TimeoutError

    def _explain_push(self, said: str) -> None:
        refused = self.refused_in_words(said.replace("\r", "\n"), "sending a file")
        if refused.code == "agent" and not self.alive():
            raise EOFError
        raise refused

    def _explain(self, fault: Exception, doing: str) -> DeployError:
        if isinstance(fault, subprocess.TimeoutExpired):
            fault = TimeoutError()
        return super()._explain(fault, doing)

    def _faults(self) -> tuple[type[Exception], ...]:
        return (*super()._faults(), subprocess.TimeoutExpired)

    def _close(self) -> None:
        pulse, self._pulse = self._pulse, None
        if pulse is not None:
            pulse.close(_LEAVE_S)


class AdbStream(ProcessStream):
    """A program on the device; the link is felt while it is silent."""

    def __init__(self, process: "subprocess.Popen[bytes]", transport: AdbTransport) -> None:
        super().__init__(process)
        self._transport = transport

    def _receive(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while True:
            left_s = deadline - time.monotonic()
            with suppress(TimeoutError):
                return super()._receive(min(SILENCE_S, max(0.0, left_s)))
            if left_s <= 0:
                raise TimeoutError
            if not self._transport.alive():
                raise EOFError

    def _writable(self, fd: int, timeout_s: float) -> bool:
        if super()._writable(fd, min(SILENCE_S, timeout_s)):
            return True
        if not self._transport.alive():
            raise EOFError
        return timeout_s > SILENCE_S

    def feed(self, data: bytes) -> None:
        """Give the program its whole input, beside whatever it prints meanwhile."""

        def write() -> None:
            with suppress(OSError, ValueError):  # it does not read to the end, or was ended
                os.set_blocking(self._stdin.fileno(), True)
                self._stdin.write(data)
                self._stdin.close()

        if data:
            threading.Thread(target=write, daemon=True).start()
        else:
            self._stdin.close()

    def last_words(self) -> None:
        """Read what is still to come on stderr of a program that has ended, without waiting for long."""
        deadline = time.monotonic() + _LEAVE_S
        with suppress(TimeoutError):
            while super()._receive(max(0.0, deadline - time.monotonic())):
                pass
            super().exit_status()

    def exit_status(self) -> int | None:
        """None when the link is gone: adb's own exit code says nothing of the program then."""
        return super().exit_status() if self._transport.alive() else None
