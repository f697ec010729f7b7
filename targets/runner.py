"""Benchmarks on a device without Python: what a runner asks of the device, and what it gives back.

A runner's author writes one class with `bench`; everything else on the way (taking turns on the device, files that are
there already, the conditions before and after) is done by `targets.devices` for all runners alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from targets.records import BenchRequest, TargetSpec

# Of one program, as of one reply of the agent: 200 000 samples of 20 digits are 4 MB.
MAX_OUTPUT_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A program that ran on the device to its end."""

    exit_code: int  # of a program ended by a signal: 128 + its number, as the shell says it
    stdout: bytes
    stderr: str  # its last `targets.transport.STDERR_TAIL_BYTES`


class Shell(Protocol):
    """What a runner needs of a device. Paths are the device's own; each method raises the errors of the device."""

    @property
    def name(self) -> str:
        """The target's name, which begins every message about it."""

    @property
    def arch(self) -> str:
        """What programs there must be built for, as in `Facts.arch`: aarch64, armv7l, x86_64 or i686."""

    @property
    def folder(self) -> str:
        """This session's own folder on the device, for a runner's outputs; gone when the session ends."""

    def run(self, argv: Sequence[str], deadline_s: float, stdin: bytes = b"") -> Finished:
        """Run one program to its end; it is killed on the device at the deadline, even if the link is dead by then.

        An argument is an argument, whatever is in it. Variables are set by `env NAME=VALUE …`, a CPU mask by
        `taskset MASK …`, both of which Android has. Raises DeviceTimeout, ConnectionLost, or AgentFailed for more than
        MAX_OUTPUT_BYTES of output; an exit code other than 0 is no error here.
        """

    def install(self, files: Mapping[str, Path]) -> str:
        """A folder on the device with these files of the host under these names, all executable.

        What is there already is not sent again. Raises what a push raises.
        """

    def send(self, path: Path, digest: str) -> str:
        """Where the file with this SHA-256 digest is on the device; it is pushed if it is not there.

        Raises DiskFull, ReadOnly, HashMismatch, DeviceTimeout or ConnectionLost.
        """

    def fetch(self, path: str, limit_bytes: int) -> bytes:
        """The contents of a file on the device; raises AgentFailed when it is not there or is larger."""


class Runner(Protocol):
    """A way to run benchmarks on such devices; constructed with the target's spec."""

    def __init__(self, spec: TargetSpec) -> None: ...

    def runtimes(self, shell: Shell) -> Mapping[str, str]:
        """The runtimes it brings to this device, as `Facts.runtimes`: distribution name to version."""

    def bench(
        self, shell: Shell, request: BenchRequest, files: Mapping[str, Path], deadline_s: float
    ) -> Mapping[str, Any]:
        """Run one benchmark: the result in the agent's own words, read by `targets.wire.decode_measurement`.

        `files` has the host's copies of the request's `blob`, `inputs` and `expected` under these three names, and of
        those in `beside` under their digests. The
        result's keys are runtime, runtime_version, delegate, load_ns, first_ns, warmup_ns, warm_ns,
        load_peak_rss_bytes, peak_rss_bytes (None where unknown), max_steps, finite, and conditions (text to text).
        With `request.energy` a power sensor is read meanwhile, and `windows` says when it was idle and when busy, as
        `targets.agent.edge.windows.run_windows` does, by the clock of /proc/uptime; a runner may leave that out.
        Raises NoRuntime, InputError, DeviceTimeout, ConnectionLost, or AgentFailed with the program's last words.
        """


@runtime_checkable
class ProfilingRunner(Runner, Protocol):
    """A runner that can also tell where the time goes."""

    def profile(
        self, shell: Shell, request: BenchRequest, files: Mapping[str, Path], deadline_s: float
    ) -> Mapping[str, Any]:
        """Op by op, in the agent's own words, read by `targets.wire.decode_profile`; raises what `bench` raises."""
