"""The host's end of the agent: puts it on the device, starts it, asks it, and names its failures."""

import errno
import io
import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from targets.agent.edge.wire import MAX_REPLY_BYTES, WIRE
from targets.agent.pack import packed
from targets.delivery import Have
from targets.errors import (
    AgentFailed,
    ConnectionLost,
    DeployError,
    DeviceError,
    DeviceTimeout,
    DiskFull,
    Downgrade,
    HashMismatch,
    HookRefused,
    InputError,
    Leased,
    NoPython,
    NoRuntime,
    NotStaged,
    ReadOnly,
    ReleaseRefused,
    SignatureRefused,
)
from targets.parcels import Parcel, make_parcel
from targets.releases import Sent
from targets.transport import STALL_S, Progress, Stalled, Stream, Transport

LEAST_PYTHON = (3, 9)
BOOT = (Path(__file__).parent / "boot.py").read_text(encoding="utf-8")
NOISE_LINES = 200  # what a login script may print before the boot program's answer
MAX_NOISE_BYTES = 64 * 1024  # in one line of it

ERROR_CLASSES: dict[str, type[DeployError]] = {
    kind.code: kind
    for kind in (
        DeviceTimeout,
        DiskFull,
        Downgrade,
        HashMismatch,
        HookRefused,
        InputError,
        Leased,
        NoRuntime,
        NotStaged,
        ReadOnly,
        ReleaseRefused,
        SignatureRefused,
    )
}
_ERRNOS: dict[type[DeployError], int] = {DiskFull: errno.ENOSPC, ReadOnly: errno.EROFS}
_HINTS: dict[type[DeployError], str] = {
    SignatureRefused: "sign it with a key that the device trusts, or have a trusted key vouch for the new one",
    Downgrade: "allow the downgrade if you mean it",
    Leased: "wait, or stop the other controller",
    HookRefused: "the hook is a program of the device's owner: put it there by other means, owned by root",
    HashMismatch: "try again",
}
_PIP = {
    "tflite": '-m pip install ai-edge-litert   (no wheel for it there: -m pip install tflite-runtime "numpy<2")',
    "onnx": "-m pip install onnxruntime",
}


class Session:
    """One agent running on the device, and the files that it keeps; requests go one at a time."""

    def __init__(self, transport: Transport, stream: Stream) -> None:
        self._transport = transport
        self._stream = stream
        self._number = 0
        self._over = False

    @property
    def target(self) -> str:
        return self._transport.spec.name

    @property
    def over(self) -> bool:
        return self._over

    def request(self, operation: str, deadline_s: float, fields: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Ask and wait; a reply that says no is raised as the error class it names, and the session goes on.

        Raises DeviceTimeout, ConnectionLost or AgentFailed when there is no reply; then the session is over.
        """
        with self._answering(operation, deadline_s):
            deadline = time.monotonic() + deadline_s
            self._stream.send_line(self._line(operation, fields or {}), deadline)
            reply = self._reply(self._number, deadline)
        return self._result(reply, fields or {})

    # --- the store of a delivery ---

    @property
    def name(self) -> str:
        return self.target

    def room_hint(self) -> str:
        return self._transport.room_hint()

    def have(self, files: Mapping[str, int], bases: frozenset[str] = frozenset()) -> Have:
        found = self.step("have", {"blobs": dict(files), "bases": sorted(bases)})
        return Have(
            present=frozenset(found["present"]),
            free_disk_bytes=int(found["free_disk_bytes"]),
            held={digest: (int(size), str(sha256)) for digest, (size, sha256) in found["held"].items()},
            bases=frozenset(found["bases"]),
            kinds=str(found["kinds"]),
        )

    def ship(self, files: Mapping[str, Path], bases: Mapping[str, Path], have: Have, progress: Progress | None) -> Sent:
        """All files one after the other without waiting between them: the device answers when it has the last byte."""
        parcels = [
            make_parcel(path, digest, have.held.get(digest), bases, have.kinds, self._transport.state / "wire")
            for digest, path in files.items()
        ]
        total = sum(parcel.wire_bytes for parcel in parcels)
        replies, at = [], 0
        with self._answering("sending a file"):
            for parcel in parcels:
                deadline = time.monotonic() + self._transport.spec.step_timeout_s
                self._stream.send_line(self._line("receive", _said_of(parcel)), deadline)
                self._stream.send(_counted(parcel.chunks(), at, total, progress), deadline)
                at += parcel.wire_bytes
            first = self._number - len(parcels) + 1
            for number in range(first, first + len(parcels)):
                replies.append(self._reply(number, time.monotonic() + self._transport.spec.step_timeout_s))
        for reply in replies:
            self._result(reply, {})
        return Sent(
            bytes_on_wire=total,
            files_sent=len(parcels),
            delta_files=sum(bool(parcel.base) for parcel in parcels),
            resumed_bytes=sum(parcel.offset for parcel in parcels),
        )

    def step(self, operation: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """A request that takes no longer than any step may."""
        return self.request(operation, self._transport.spec.step_timeout_s, fields)

    def _line(self, operation: str, fields: Mapping[str, Any]) -> bytes:
        self._number += 1
        return json.dumps({"id": self._number, "op": operation, **fields}).encode()

    def _reply(self, number: int, deadline: float) -> dict[str, Any]:
        reply = _json(self._stream.read_line(deadline, MAX_REPLY_BYTES))
        if reply.get("id") != number or not ("ok" in reply or "error" in reply):
            raise AgentFailed(f"{self.target}: the agent answered out of protocol")
        return reply

    def _result(self, reply: Mapping[str, Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
        if "ok" in reply:
            return dict(reply["ok"])
        raise self._named(reply["error"], fields)

    @contextmanager
    def _answering(self, operation: str, deadline_s: float = 0.0) -> Iterator[None]:
        """Ends the session unless all that was sent has been answered, and names what went wrong."""
        if self._over:
            raise ConnectionLost(f"{self.target}: this session is over", hint="connect again")
        answered = False
        try:
            with self._transport.guard(operation), self._explained(operation, deadline_s):
                yield
            answered = True
        finally:
            if not answered:
                self.close()  # includes Ctrl-C: closing its stdin makes the agent end its child and itself

    @contextmanager
    def _explained(self, operation: str, deadline_s: float) -> Iterator[None]:
        try:
            yield
        except Stalled:
            message = f"{self.target}: the device took no byte for {STALL_S:g} s"
            raise DeviceTimeout(message, hint="check its storage and its load") from None
        except TimeoutError:
            if not deadline_s:
                raise
            hint = f"raise the deadline if {self.target} is merely slow"
            raise DeviceTimeout(f"{self.target}: no reply to {operation} within {deadline_s:g} s", hint=hint) from None
        except (EOFError, BrokenPipeError):
            status = self._stream.exit_status()
            if status is None:
                raise
            tail = self._stream.stderr_tail()
            raise AgentFailed(
                f"{self.target}: the agent ended with status {status} during {operation}\n{tail}"
            ) from None

    def _named(self, error: Mapping[str, Any], fields: Mapping[str, Any]) -> DeployError:
        text = f"{self.target}: {error['message']}"
        if error.get("stderr"):
            text += "\n" + str(error["stderr"])
        kind = ERROR_CLASSES.get(error["code"], AgentFailed)
        if kind in _ERRNOS:
            return self._transport.refused(_ERRNOS[kind], str(error["message"]), "writing")
        hint = ""
        if kind is NoRuntime:
            python = error.get("executable", "python3")
            hint = (
                f"on the device: {python} {_PIP[fields['format']]}. Packages of `pip --user` are not seen; where pip "
                f"refuses a managed Python, make a venv and set `python:` of target {self.target} to its interpreter"
            )
        elif "SIGKILL" in text:
            hint = "the kernel ends processes this way when memory runs out: see dmesg on the device"
        else:
            hint = _HINTS.get(kind, "")
        return kind(text, hint=hint)

    def close(self) -> None:
        """End the agent; it removes its unfinished files and kills its child. Safe to call twice."""
        if self._over:
            return
        self._over = True
        try:
            with self._transport.guard("ending the agent"):
                self._stream.close()
        except DeviceError:
            pass  # the link is gone, and with it the agent's stdin


def _said_of(parcel: Parcel) -> dict[str, Any]:
    return {
        "sha256": parcel.digest,
        "size_bytes": parcel.size_bytes,
        "offset": parcel.offset,
        "wire_bytes": parcel.wire_bytes,
        "framed": parcel.framed,
        "base": parcel.base,
    }


def _counted(chunks: Iterable[bytes], at: int, total: int, progress: Progress | None) -> Iterator[bytes]:
    """The chunks; progress is told of each when the next one is asked for, which is when it has left."""
    for chunk in chunks:
        yield chunk
        at += len(chunk)
        if progress:
            progress(at, total)


def open_session(transport: Transport) -> Session:
    """Put this version's agent on the device unless it is there, start it, and agree on the wire version."""
    source, token = packed(), secrets.token_hex(6)
    argv = [transport.python, "-I", "-S", "-c", BOOT, transport.root, sha256(source).hexdigest(), token]
    if not transport.spec.python:  # an interpreter that the user named is the user's choice
        argv.append("prefer-own")
    stream, boot = _start(transport, argv)
    if not boot["ready"]:
        stream.close()
        transport.write(io.BytesIO(source), len(source), boot["part"])
        stream, boot = _start(transport, argv)
        if not boot["ready"]:
            stream.close()
            raise HashMismatch(f"{transport.spec.name}: the agent arrived damaged", hint="try again")
    session = Session(transport, stream)
    session.step("hello", {"wire": list(WIRE)})
    return session


def _start(transport: Transport, argv: list[str]) -> tuple[Stream, dict[str, Any]]:
    """Run the boot program; when its answer says ready, the stream is the agent's."""
    stream = transport.start(argv)
    try:
        with transport.guard("starting the agent"):
            return stream, _boot_answer(transport, stream)
    except BaseException:
        stream.close()
        raise


def _boot_answer(transport: Transport, stream: Stream) -> dict[str, Any]:
    deadline = time.monotonic() + transport.spec.step_timeout_s
    try:
        # A login script may print before it, so the answer is looked for, not assumed.
        for _ in range(NOISE_LINES):
            answer = _json(stream.read_line(deadline, MAX_NOISE_BYTES))
            if "edge_deploy_boot" in answer:
                break
        else:
            raise AgentFailed(f"{transport.spec.name}: a login script on the device prints without end")
    except EOFError:
        status = stream.exit_status()
        if status is None:
            raise
        raise _no_python(transport, status, stream.stderr_tail()) from None
    if tuple(answer["python"]) < LEAST_PYTHON:
        raise _too_old(transport, ".".join(map(str, answer["python"])))
    if "errno" in answer:
        raise transport.refused(answer["errno"] or 0, answer["message"], "preparing its folder")
    return answer


def _no_python(transport: Transport, status: int, stderr: str) -> DeviceError:
    name, last = transport.spec.name, (stderr.splitlines() or ["no reason given"])[-1]
    if status in (126, 127):  # the shell's words for "cannot be run" and "not found"
        hint = f"install Python 3.9 or later there, or set `python:` of target {name} to its path"
        return NoPython(f"{name}: {transport.python} cannot be run on the device ({last})", hint=hint)
    if "Unknown option: -I" in stderr:
        return _too_old(transport, "2")
    return AgentFailed(f"{name}: {transport.python} ended with status {status} on the device ({last})")


def _too_old(transport: Transport, version: str) -> NoPython:
    name = transport.spec.name
    hint = f"install Python 3.9 or later there and set `python:` of target {name} to its path"
    return NoPython(f"{name}: {transport.python} on the device is Python {version}, which is too old", hint=hint)


def _json(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
