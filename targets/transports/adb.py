"""Devices reached over adb: phones, and boards whose Linux has an adb daemon.

Files go by `adb push`, programs run in shells of their own. One shell more is the pulse: it echoes what it is sent, so
that silence on a dead link is told from a device that takes its time, and it runs our short scripts, for starting a
shell costs a device as much as all the programs of one.
"""

import os
import secrets
import select
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from targets.errors import ConnectionLost, DeployError, DeviceTimeout
from targets.records import TargetSpec
from targets.transport import CHUNK_BYTES, STALL_S, STDERR_TAIL_BYTES, Progress, Stream, Transport
from targets.transports.adb_attach import attach
from targets.transports.adb_client import AdbClient, end
from targets.transports.adb_shell import AdbShell

MAX_OUTPUT_BYTES = 8 << 20  # of a script, which tells facts and no contents
# How long the pulse may take: the packets of a push before it must leave first.
PULSE_S = 4.0
_FIRST_PULSE_S = 3.0  # before a connection that the server believes in is made anew; a shell starts in 0.05 s
_LOOK_S = 1.0  # between two looks at how far a push is: a program's start on the device
_LEAVE_S = 1.0  # for an adb client whose device is there

_SAYS_ALL_IN_ONE: dict[str, object] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}

# Ends a program with all that it has started, by the pid of its shell: adbd gives each a session of its own, while
# `timeout` makes process groups. Not by `pkill`, whose number of a signal toybox does not understand beside `-s`.
END_PROGRAM = """
{ read -r shell <"$1" && rm -f "$1" && kill -9 $(pgrep -s "$shell") || kill -9 "-$shell"; } 2>/dev/null
"""

# Reads a line and echoes it, or runs a script of so many lines in a subshell; a token says where its output ends, and
# that of its errors. When the lines end (the host, the link or the server is gone) it removes what it was told to: the
# session's own folder, after ending the programs that were started there. HUP is what adbd sends then.
_PULSE = (
    f"end_program() {{{END_PROGRAM}}}"
    """
trap : HUP INT TERM
folder=
while read -r word rest; do
  case $word in
  run)
    count=${rest%% *} token=${rest#* } text=
    while [ "$count" -gt 0 ]; do
      IFS= read -r line; count=$((count - 1)) text="$text$line
"
    done
    ( eval "$text" ) </dev/null
    printf '\\n%s %s\\n' "$token" $?
    echo "$token" >&2
    ;;
  size) stat -c %s "$rest" 2>/dev/null || echo 0 ;;
  own) folder=$rest; echo $$ >"$folder/session"; echo own ;;
  *) echo "$word" ;;
  esac
done
[ -n "$folder" ] || exit 0
for file in "$folder"/*.pid; do end_program "$file"; done
[ ! -f "$folder/undo" ] || sh "$folder/undo" >/dev/null 2>&1
rm -rf "$folder"
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A script that ran to its end."""

    code: int
    output: bytes
    errors: str


class AdbTransport(Transport):
    """One device of the adb server."""

    default_root: ClassVar[str] = "/data/local/tmp/edge-deploy"
    process = "a program of adb's shell"

    def __init__(self, spec: TargetSpec, state: Path) -> None:
        super().__init__(spec, state)
        self._client: AdbClient | None = None
        self._pulse: AdbShell | None = None
        self._busy = False  # a script of ours keeps the pulse from beating
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
        if self._pulse is None:
            return False
        with suppress(OSError, EOFError):
            beats = self._beats_apart() if self._busy else self._beats(self._pulse)
            if beats:
                return True
        self._drop_pulse()
        return False

    def _beats(self, pulse: AdbShell) -> bool:
        pulse.send_line(b"beat", 0)
        return pulse.read_line(time.monotonic() + PULSE_S, 100) == b"beat"

    def _beats_apart(self) -> bool:
        assert self._client
        deadline = time.monotonic() + PULSE_S
        other = AdbShell(self._client.shell(self._serial, "echo beat", PULSE_S))
        try:
            return other.read_line(deadline, 100) == b"beat"
        finally:
            other.kill()

    def _alive_meanwhile(self) -> bool:
        """For the pulse itself: it is not felt by its own beats."""
        return self.alive() if self._busy else True

    def _drop_pulse(self) -> None:
        pulse, self._pulse = self._pulse, None
        if pulse is not None:
            pulse.kill()

    def shell(self, line: str) -> AdbShell:
        """Run a line of the device's shell, in one of its own."""
        with self.guard("starting a program"):
            return self._shell(line)

    def _shell(self, line: str) -> AdbShell:
        if self._client is None or self._pulse is None:
            raise ConnectionLost(f"{self.spec.name}: the connection is closed", hint="connect again")
        return AdbShell(self._client.shell(self._serial, line), self.alive)

    def script(self, text: str, doing: str, limit_s: float) -> Ended:
        """Run a short script without input in the pulse's shell; the connection is over when that fails."""
        pulse = self._pulse
        if pulse is None:
            raise ConnectionLost(f"{self.spec.name}: the connection is closed", hint="connect again")
        self._busy = True
        try:
            with self.guard(doing):
                lines, token = text.encode("utf-8", "surrogateescape"), secrets.token_hex(8)
                pulse.send_line(b"run %d %s\n%s" % (lines.count(b"\n") + 1, token.encode(), lines), 0)
                code, output = pulse.read_until(token, time.monotonic() + limit_s, MAX_OUTPUT_BYTES)
                return Ended(code=code, output=output, errors=pulse.errors_until(token, time.monotonic() + PULSE_S))
        except BaseException:
            self._drop_pulse()
            raise
        finally:
            self._busy = False

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
        try:
            pulse = AdbShell(self._client.shell(self._serial, _PULSE, limit_s), self._alive_meanwhile)
        except OSError as fault:
            self._trouble = str(fault)
            return False
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
            if progress:
                progress(0, size_bytes)
            push = self._client.spawn("-s", self._serial, "push", local, path, **_SAYS_ALL_IN_ONE)
            stack.callback(end, push)
            said = self._follow(push, size_bytes, path, deadline, progress)
            if push.wait(max(0.1, deadline - time.monotonic())):
                self._explain_push(said)
        if progress:
            progress(size_bytes, size_bytes)

    def _follow(
        self, push: "subprocess.Popen[bytes]", size_bytes: int, path: str, deadline: float, progress: Progress | None
    ) -> str:
        """What a push says until its end; raises TimeoutError, DeviceTimeout or, for a dead link, EOFError.

        How far it is, the device is asked: adb says so to terminals only, and of bytes that are under way yet.
        """
        assert push.stdout
        said, there, moved = b"", 0, time.monotonic()
        while True:
            if select.select([push.stdout], [], [], min(_LOOK_S, max(0.0, deadline - time.monotonic())))[0]:
                chunk = os.read(push.stdout.fileno(), 65536)
                said = (said + chunk)[-STDERR_TAIL_BYTES:]
                if not chunk:
                    return said.decode("utf-8", "replace")
            elif time.monotonic() >= deadline:
                raise TimeoutError
            elif (now := self._arrived(path)) > there:
                there, moved = now, time.monotonic()
                if progress and there < size_bytes:
                    progress(there, size_bytes)
            elif time.monotonic() > moved + STALL_S:
                message = f"{self.spec.name}: the device took no byte for {STALL_S:g} s"
                raise DeviceTimeout(message, hint="check its storage and its load")

    def _arrived(self, path: str) -> int:
        """How many bytes of a file there are; raises EOFError when the device does not answer."""
        if self._pulse is None:
            raise EOFError
        try:
            self._pulse.send_line(b"size " + os.fsencode(path), 0)
            said = self._pulse.read_line(time.monotonic() + PULSE_S, 100)
        except (OSError, EOFError):
            self._drop_pulse()
            raise EOFError from None
        return int(said) if said.isdigit() else 0

    def _explain_push(self, said: str) -> None:
        refused = self.refused_in_words(said, "sending a file")
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
