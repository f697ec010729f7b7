"""A session with a device that has a shell and no Python: the files on it, and the programs that run there.

ROOT/blobs/sha256/<digest>     files, complete and hashed, never changed; as the agent keeps them
ROOT/installed/<digest>/       files of `install` under their own names, as links to blobs
ROOT/sessions/<session>/       files on their way in; gone with the session, or swept when nobody holds it any more
"""

import hashlib
import math
import os
import secrets
import shlex
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path

from targets.agent.edge.facts import user_arch
from targets.delivery import Have, deliver, digest_hex
from targets.devices import shell_load
from targets.errors import AgentFailed, ConnectionLost, DeployError, DeviceTimeout, HashMismatch
from targets.releases import Sent
from targets.runner import MAX_OUTPUT_BYTES, Finished
from targets.transport import Progress
from targets.transports.adb import END_PROGRAM, AdbTransport

# The device ends a program at its deadline; only when it does not say so, the host gives up.
_GRACE_S = 5.0
_LAST_WORDS_S = 1.0  # for what is still to come on stderr
_KILLED = 137  # what a shell says of a program that SIGKILL has ended

# What a session that was killed has left has no pulse any more, or is of another boot. Without either mark it is being
# born, unless it has been so for a minute. What may still be held is told; perhaps we know better.
_OPEN = """
umask 022
boot=-; read -r boot </proc/sys/kernel/random/boot_id
mkdir -p "$1/blobs/sha256" "$1/installed" "$1/sessions/$2" && echo "$boot" >"$1/sessions/$2/boot"
code=$?
for folder in "$1"/sessions/*; do
  [ "$folder" != "$1/sessions/$2" ] || continue
  pid=; read -r pid <"$folder/session"
  born=; read -r born <"$folder/boot"
  if [ -z "$pid" ] && [ -n "$(find "$folder" -maxdepth 0 -mmin -1)" ]; then continue; fi
  if [ "$born" = "$boot" ] && [ -d "/proc/${pid:-none}" ]; then echo "${folder##*/}"; continue; fi
  [ "$born" != "$boot" ] || [ ! -f "$folder/undo" ] || sh "$folder/undo"
  rm -rf "$folder"
done 2>/dev/null
[ $code = 0 ]
"""
_ARCH = "uname -m; getprop ro.product.cpu.abilist 2>/dev/null || echo"
_SWEEP = """
cd "$1/sessions" && shift && for name in "$@"; do
  [ ! -f "$name/undo" ] || sh "$name/undo"
  rm -rf "$name"
done
"""
# Every program costs a phone 5 ms and an emulated one 40: no more of them than needed.
_HAVE = """
cd "$1" && shift && all=yes && while [ $# -gt 0 ]; do
  if [ -f "blobs/sha256/$1" ] && [ "$(stat -c %s "blobs/sha256/$1")" = "$2" ]; then echo "$1"; else all=no; fi
  shift 2
done
[ $all = yes ] || df -kP .
"""
# The bytes first, then the name: after a power cut it is there with all of them, or not at all. GNU has no fsync, but a
# sync that takes a file.
_COMMIT = """
found=$(sha256sum <"$1") && found=${found%% *} && if [ "$found" = "$2" ]; then
  { fsync "$1" 2>/dev/null || sync "$1"; } && mv -f "$1" "$3"
else
  rm -f "$1"; echo "$found"
fi
"""
# A stored file that is not what its name says is removed and named.
_CHECK = """
cd "$1" && shift && for digest in "$@"; do
  if [ ! -f "$digest" ]; then echo "missing $digest"; continue; fi
  found=$(sha256sum <"$digest"); [ "${found%% *}" = "$digest" ] || { rm -f "$digest"; echo "changed $digest"; }
done
"""
_INSTALLED = (
    '[ -d "$1" ] && cd "$1" && shift && for name in "$@"; do [ -f "$name" ] || echo missing; done || echo missing'
)
_INSTALL = """
new=$1 live=$2 blobs=$3; shift 3
rm -rf "$new" "$live"; mkdir "$new" && while [ $# -gt 0 ]; do ln -s "$blobs/$2" "$new/$1" || break; shift 2; done &&
  [ $# = 0 ] && chmod 755 "$new"/* && mv "$new" "$live"
"""

_living: set[str] = set()  # names of the sessions of this process


class ShellSession:
    """One session; both the store of a delivery and what a runner needs of a device."""

    def __init__(self, transport: AdbTransport) -> None:
        self._transport = transport
        self._over = False
        self._numbers = 0
        self.acting_for = ""  # the owner of the lease under which releases are changed
        self.session = f"{_this_host()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.root = transport.root
        self.folder = f"{self.root}/sessions/{self.session}"
        try:
            self._open()
        except BaseException:
            _living.discard(self.session)
            raise

    def _open(self) -> None:
        _living.add(self.session)
        said = self.script(_OPEN, self.root, self.session, doing="preparing its folder")
        self._transport.own(self.folder)
        if dead := [name for name in said.split() if not _may_live(name)]:
            self.script(_SWEEP, self.root, *dead, doing="removing what dead sessions left")

    @property
    def name(self) -> str:
        return self._transport.spec.name

    @cached_property
    def arch(self) -> str:
        machine, abis = self.script(_ARCH, doing="asking for its processor").splitlines()
        return architecture(machine, abis)

    @property
    def over(self) -> bool:
        return self._over

    def undo_at_end(self, command: str) -> None:
        """Have a line run on the device when this session ends, however it ends, unless the device restarts before."""
        self.script('printf "%s\\n" "$2" >>"$1/undo"', self.folder, command, doing="noting what is to be undone")

    def undo(self) -> None:
        self.script('sh "$1/undo"; rm -f "$1/undo"', self.folder, doing="undoing what was set")

    def close(self) -> None:
        """The pulse ends with the connection, and with it the session's folder."""
        self._over = True
        _living.discard(self.session)

    # --- the store ---

    def have(self, files: Mapping[str, int], bases: frozenset[str] = frozenset()) -> Have:
        words = [str(word) for pair in files.items() for word in pair]
        said = self.script(_HAVE, self.root, *words, doing="looking for files")
        present = files.keys() & set(said.split())
        free = free_bytes(said) if len(present) < len(files) else 0
        return Have(present=frozenset(present), free_disk_bytes=free, held={})

    def ship(self, files: Mapping[str, Path], bases: Mapping[str, Path], have: Have, progress: Progress | None) -> Sent:
        total = 0
        for digest, path in files.items():
            part, size = f"{self.folder}/{digest}.part", path.stat().st_size
            try:
                with path.open("rb") as source:
                    self._transport.write(source, size, part, progress)
            except (ConnectionLost, DeviceTimeout):
                self.close()  # which removes its parts where it can; else the next session sweeps them
                raise
            except DeployError:
                with suppress(DeployError):  # give the space back at once; the first error is the one to tell
                    self.script('rm -f "$1"', part, doing="removing a file")
                raise
            found = self.script(_COMMIT, part, digest, self.blob(digest), doing="storing a file").strip()
            if found:
                raise HashMismatch(f"{self.name}: arrived as sha256 {found}, was sent as {digest}", hint="try again")
            total += size
        return Sent(bytes_on_wire=total, files_sent=len(files), delta_files=0, resumed_bytes=0)

    def room_hint(self) -> str:
        return self._transport.room_hint()

    def blob(self, digest: str) -> str:
        return f"{self.root}/blobs/sha256/{digest}"

    def check(self, files: Mapping[str, str]) -> None:
        """Raise unless every file (role to digest) is stored and unchanged: flash rots, the digest is the evidence."""
        said = self.script(_CHECK, f"{self.root}/blobs/sha256", *files.values(), doing="checking stored files")
        for line in said.splitlines():
            what, _, digest = line.partition(" ")
            role = next(role for role, wanted in files.items() if wanted == digest)
            if what == "changed":
                raise HashMismatch(f"{self.name}: the stored {role} {digest} has changed; push it again")
            raise AgentFailed(f"{self.name}: the {role} {digest} is not on the device; push it first")

    # --- what runners use ---

    def send(self, path: Path, digest: str) -> str:
        digest = digest_hex(digest)
        deliver(self, {digest: path})
        return self.blob(digest)

    def install(self, files: Mapping[str, Path]) -> str:
        digests = {name: _sha256_of(path) for name, path in sorted(files.items())}
        key = hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in digests.items()).encode()).hexdigest()
        folder = f"{self.root}/installed/{key}"
        if self.script(_INSTALLED, folder, *files, doing="looking for a program").strip():
            deliver(self, {digest: files[name] for name, digest in digests.items()})
            pairs = [word for pair in digests.items() for word in pair]
            new, blobs = f"{self.folder}/{key}", f"{self.root}/blobs/sha256"
            self.script(_INSTALL, new, folder, blobs, *pairs, doing="installing a program")
        return folder

    def read(self, path: str) -> bytes:
        """A short file of ours; nothing where there is none."""
        return self._script('[ ! -f "$1" ] || cat "$1"', path, doing="reading a file")

    def fetch(self, path: str, limit_bytes: int) -> bytes:
        done = self._run(
            'stat -c %s "$1" && cat "$1"', (path,), self._transport.spec.step_timeout_s, limit=limit_bytes + 100
        )
        size, _, content = done.stdout.partition(b"\n")
        if done.exit_code:
            raise self._transport.refused_in_words(done.stderr, "reading a file")
        if int(size) != len(content):
            raise AgentFailed(f"{self.name}: {path} has changed while it was read")
        return content

    def run(self, argv: Sequence[str], deadline_s: float, stdin: bytes = b"") -> Finished:
        # HUP is what adbd sends when the link is gone, to the shell only: ignored, the deadline or the pulse ends all.
        self._numbers += 1
        pid_file = f"{self.folder}/{self._numbers}.pid"
        seconds = max(1, math.ceil(deadline_s))
        script = (
            f"trap '' HUP; echo $$ >\"$1\"; {shell_load.BEFORE}\ntimeout -s KILL {seconds} {shlex.join(argv)}\n"
            f"ran=$?\n{shell_load.AFTER}\n(exit $ran)"
        )
        start, answered = time.monotonic(), False
        try:
            done = self._run(
                script, (pid_file, f"{self.folder}/load"), seconds + _GRACE_S, after='rm -f "$1"', stdin=stdin
            )
            answered = True
        finally:
            if not answered:
                self._end_program(pid_file)
        if done.exit_code == _KILLED and time.monotonic() - start >= seconds:
            raise DeviceTimeout(f"{self.name}: {Path(argv[0]).name} outlived its deadline of {seconds} s")
        return done

    def _end_program(self, pid_file: str) -> None:
        if not self._over and self._transport.alive():
            with suppress(DeployError):
                self._run(END_PROGRAM, (pid_file,), _GRACE_S)

    # --- programs ---

    def script(self, text: str, *words: str, doing: str) -> str:
        """Run a script of ours, the words as $1 …; what it prints. Raises the error that its stderr tells of."""
        return self._script(text, *words, doing=doing).decode("utf-8", "replace")

    def _script(self, text: str, *words: str, doing: str) -> bytes:
        self._check_open()
        line = f"set -- {shlex.join(words)}\n{text}"
        try:
            ended = self._transport.script(line, doing, self._transport.spec.step_timeout_s)
        except (ConnectionLost, DeviceTimeout):
            self.close()
            raise
        if ended.code:
            raise self._transport.refused_in_words(ended.errors, doing)
        return ended.output

    def _run(
        self,
        text: str,
        words: Sequence[str],
        limit_s: float,
        *,
        after: str = "",
        stdin: bytes = b"",
        limit: int = MAX_OUTPUT_BYTES,
    ) -> Finished:
        """Run a program to its end, which a line of its own proves: the shell also ends when something else does."""
        self._check_open()
        token = secrets.token_hex(8)
        line = f"set -- {shlex.join(words)}\n{text}\ncode=$?\n{after}\nprintf '\\n%s %s\\n' {token} $code"
        stream = self._transport.shell(line)
        try:
            with self._transport.guard("running a program"):
                try:
                    stream.feed(stdin)
                    code, output = stream.read_until(token, time.monotonic() + limit_s, limit)
                    stream.exit_status(_LAST_WORDS_S)
                    return Finished(exit_code=code, stdout=output, stderr=stream.stderr_tail())
                except EOFError:
                    if not self._transport.alive():
                        raise
                    said = stream.stderr_tail()
                    raise AgentFailed(f"{self.name}: a program ended on the device without a word\n{said}") from None
        except ConnectionLost:
            self.close()
            raise
        finally:
            stream.kill()

    def _check_open(self) -> None:
        if self._over:
            raise ConnectionLost(f"{self.name}: this session is over", hint="connect again")


@cache
def _this_host() -> str:
    """What tells this machine from others, as far as it can be told."""
    with suppress(OSError):
        machine = Path("/etc/machine-id").read_text(encoding="ascii")
        return hashlib.sha256(f"{machine} {socket.gethostname()}".encode()).hexdigest()[:12]
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def _may_live(name: str) -> bool:
    """Whether a session may still be open: that of another host, or of a process that runs here."""
    host, _, rest = name.partition("-")
    pid = rest.partition("-")[0]
    if host != _this_host() or not pid.isdecimal():
        return True
    if int(pid) == os.getpid():
        return name in _living
    return Path(f"/proc/{pid}").exists()


def architecture(machine: str, abis: str) -> str:
    """The architecture programs must be built for: a 64-bit kernel may carry a 32-bit Android."""
    first = abis.partition(",")[0].strip()
    known = {"arm64-v8a": "aarch64", "armeabi-v7a": "armv7l", "x86_64": "x86_64", "x86": "i686"}
    return known.get(first) or user_arch(machine.strip(), 64)


def free_bytes(df: str) -> int:
    """The bytes available to us, from the last line of `df -kP`; raises AgentFailed."""
    fields = df.strip().rpartition("\n")[2].split()
    if len(fields) < 6 or not fields[3].isdecimal():
        raise AgentFailed(f"the device's df says {df!r}")
    return int(fields[3]) * 1024


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
