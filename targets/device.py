"""A connected device: what it is, what is on it, and how fast and how well a model answers there."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from targets.delivery import Store, deliver
from targets.errors import NoPython
from targets.glance import Glance
from targets.parts import Distances, Way, WholeWay
from targets.records import BenchRequest, Facts, Measurement, Profile, TargetSpec
from targets.releases import Releases
from targets.transport import Transport
from targets.transports import load_transport


class Device(ABC):
    """One device with which a session is open; use it as a context manager, from one thread at a time.

    Every expected failure is raised as a `DeployError`. After DeviceTimeout or ConnectionLost the session is over:
    connect again.
    """

    def __init__(self, spec: TargetSpec, transport: Transport) -> None:
        self.spec = spec
        self._transport = transport

    @property
    @abstractmethod
    def _store(self) -> Store:
        """The files of the open session."""

    def glance(self) -> Glance | None:
        """What is in use there, when that can be had for less than a session; None when not, or nobody knows."""
        return None

    @abstractmethod
    def facts(self) -> Facts:
        """What the device is and how it is right now."""

    def try_runtimes(self) -> Mapping[str, str]:
        """What goes wrong when each installed runtime is imported, by distribution; "" when nothing does.

        A build for another CPU ends the process: that is found here, in one of its own, and not in a benchmark. Empty
        for a device whose runtimes the host brings along.
        """
        return {}

    def push(self, path: Path, digest: str, progress: Callable[[int, int], None] | None = None) -> bool:
        """Bring a file to the device under its SHA-256 digest; False when it was there and nothing was sent.

        `progress(sent_bytes, total_bytes)` is called as chunks leave. Raises DiskFull, ReadOnly, HashMismatch,
        DeviceTimeout or ConnectionLost; a partial file is never left under a live name.
        """
        try:
            return deliver(self._store, {digest: path}, progress=progress).files_sent > 0
        except KeyboardInterrupt:
            self.close()
            raise

    @property
    @abstractmethod
    def releases(self) -> Releases:
        """The release store; raises NotSupported where there can be none."""

    @abstractmethod
    def bench(self, request: BenchRequest, deadline_s: float, files: Mapping[str, Path] | None = None) -> Measurement:
        """Run one benchmark in a fresh process on the device.

        `files` has the host's copies of `request.files`, for devices
        without Python: there the host prepares the sample and judges the answer. Raises NoRuntime, HashMismatch (a
        stored file has rotted: push it again), InputError (the sample does not fit the model), DeviceTimeout, or
        AgentFailed with the last lines of the process when it died.
        """

    def provision(self, environment: str, wheels: Mapping[str, str]) -> Mapping[str, Any]:
        """Make an environment of wheels (file name to digest) that were pushed; see `targets.provision`.

        Raises NoPython for a device that is worked by its shell.
        """
        raise NoPython(
            f"{self.spec.name}: without Python there is nothing to provision", hint="its runner brings the runtimes"
        )

    def profile(self, request: BenchRequest, deadline_s: float, files: Mapping[str, Path] | None = None) -> Profile:
        """Where the time of an inference goes, op by op, in a run of its own; `files` as for `bench`.

        Raises what `bench` raises, and NoPython for a device that is worked by its shell with a runner that has none.
        """
        hint = "profile a board with the same chip, or a phone with `runner: benchmark_model`"
        raise NoPython(f"{self.spec.name}: profiles are taken by the agent", hint=hint)

    def whole_way(self, request: BenchRequest, way: Way, deadline_s: float) -> WholeWay:
        """How long each part from a sample's bytes to the answer takes there.

        Raises what `bench` raises, and NoPython for a device that is worked by its shell.
        """
        raise NoPython(f"{self.spec.name}: steps are run by the agent", hint="they need Python and numpy there")

    def distances(self, request: BenchRequest, deadline_s: float) -> Distances:
        """How far each output is from the host's, which `expected` has as `output0`, `output1` … in their order.

        Raises what `bench` raises, and NoPython for a device that is worked by its shell.
        """
        raise NoPython(
            f"{self.spec.name}: layers are compared by the agent", hint="compare on a board with the same chip"
        )

    def begin(self) -> None:
        """Open the session now, where that is done lazily; raises what is wrong with it."""
        _ = self._store

    @property
    def over(self) -> bool:
        """Whether the session has ended, so that only a new connection can go on."""
        return self._store.over

    def close(self) -> None:
        """End the session and the connection; nothing of ours keeps running on the device."""
        self._store.close()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def connect(spec: TargetSpec, *, state: Path, lazily: bool = False) -> Device:
    """Connect and open a session: with our agent where there is Python, else with the device's own shell.

    `state` is the host's own folder; the local transport keeps its device in it. `lazily`: the agent is started by the
    first thing that needs it, which then raises what is wrong with it. Raises UsageError for an unknown
    transport, else Unreachable, HostKeyRejected, AuthRefused, NoPython, DiskFull, ReadOnly, DeviceTimeout,
    ConnectionLost or AgentFailed.
    """
    transport = load_transport(spec.transport)(spec, state)
    try:
        transport.open()
        # By name, because the devices' modules are built on this one.
        place = "targets.devices.agent" if transport.has_python else "targets.devices.shell"
        device: Device = importlib.import_module(place).open_device(transport)
        if not lazily:
            device.begin()
        return device
    except BaseException:
        transport.close()
        raise
