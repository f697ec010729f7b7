"""A connected device: what it is, what is on it, and how fast and how well a model answers there."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from targets.agent.session import Session, open_session
from targets.delivery import deliver, digest_hex
from targets.records import BenchRequest, Facts, Measurement, TargetSpec
from targets.transport import Transport
from targets.transports import load_transport
from targets.wire import decode_facts, decode_measurement

# The agent ends a benchmark at its deadline and says so; only when it cannot do that either, the host gives up.
REPLY_GRACE_S = 15.0


class Device:
    """One device with our agent running on it; use it as a context manager, from one thread at a time.

    Every expected failure is raised as a `DeployError`. After DeviceTimeout or ConnectionLost the session is over:
    connect again.
    """

    def __init__(self, spec: TargetSpec, transport: Transport, session: Session) -> None:
        self.spec = spec
        self._transport = transport
        self._session = session

    def facts(self) -> Facts:
        """What the device is and how it is right now."""
        return decode_facts(self.spec.name, self._session.request("facts", self.spec.step_timeout_s))

    def push(self, path: Path, digest: str, progress: Callable[[int, int], None] | None = None) -> bool:
        """Bring a file to the device under its SHA-256 digest; False when it was there and nothing was sent.

        `progress(sent_bytes, total_bytes)` is called as chunks leave. Raises DiskFull, ReadOnly, HashMismatch,
        DeviceTimeout or ConnectionLost; a partial file is never left under a live name.
        """
        try:
            return deliver(self._transport, self._session, path, digest, progress)
        except KeyboardInterrupt:
            self.close()
            raise

    def bench(self, request: BenchRequest, deadline_s: float) -> Measurement:
        """Run one benchmark in a fresh process on the device.

        Raises NoRuntime, HashMismatch (a stored file has rotted: push it again), InputError (the sample does not fit
        the model), DeviceTimeout, or AgentFailed with the last lines of the process when it died.
        """
        fields = asdict(request)
        for role in ("blob", "inputs", "expected"):
            fields[role] = digest_hex(fields[role])
        reply = self._session.request("bench", deadline_s + REPLY_GRACE_S, {**fields, "deadline_s": deadline_s})
        return decode_measurement(self.spec.name, request, reply)

    @property
    def over(self) -> bool:
        """Whether the session has ended, so that only a new connection can go on."""
        return self._session.over

    def close(self) -> None:
        """End the agent and the connection; nothing of ours keeps running on the device."""
        self._session.close()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def connect(spec: TargetSpec, *, state: Path) -> Device:
    """Connect, put the agent there if it is not, and start it.

    `state` is the host's own folder; the local transport keeps its device in it. Raises UsageError for an unknown
    transport, else Unreachable, HostKeyRejected, AuthRefused, NoPython, DiskFull, ReadOnly, DeviceTimeout,
    ConnectionLost or AgentFailed.
    """
    transport = load_transport(spec.transport)(spec, state)
    try:
        transport.open()
        return Device(spec, transport, open_session(transport))
    except BaseException:
        transport.close()
        raise
