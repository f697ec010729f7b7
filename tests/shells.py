"""A device's shell for runners, over any transport that can start programs and write files, and over the adb client."""

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from adb_client import Adb
from tiny_models import digest_of

from targets.errors import AgentFailed, DeviceTimeout, EnvironmentFault
from targets.native.build import compiler
from targets.runner import MAX_OUTPUT_BYTES, Finished
from targets.transport import Stream, Transport


def require_compiler(arch: str) -> None:
    """Skip where nothing can be compiled for an architecture; in CI that is a failure, or nobody would notice."""
    try:
        compiler(arch)
    except EnvironmentFault as fault:
        if os.environ.get("CI"):
            pytest.fail(str(fault))
        pytest.skip(f"{fault}: {fault.hint}")


class TransportShell:
    """Of a device with a POSIX shell; its folders are made and left where the test says."""

    def __init__(self, transport: Transport, arch: str, folder: str) -> None:
        self.name, self.arch, self.folder = transport.spec.name, arch, folder
        self._transport = transport
        self._there: set[str] = set()
        self.commands: list[list[str]] = []
        self._ok(["mkdir", "-p", folder])

    def run(self, argv: Sequence[str], deadline_s: float, stdin: bytes = b"") -> Finished:
        self.commands.append(list(argv))
        stream = self._transport.start(list(argv))
        end, output = time.monotonic() + deadline_s, b""
        try:
            while (line := self._line(stream, end)) is not None:
                output += line
            status = stream.exit_status()
            assert status is not None
            # A transport tells of a signal as Python does, the protocol as a shell does.
            return Finished(
                exit_code=status if status >= 0 else 128 - status, stdout=output, stderr=stream.stderr_tail()
            )
        finally:
            stream.close()

    def _line(self, stream: Stream, end: float) -> bytes | None:
        try:
            return stream.read_line(end, MAX_OUTPUT_BYTES) + b"\n"
        except EOFError:
            return None
        except TimeoutError:
            raise DeviceTimeout(f"{self.name}: too slow") from None

    def _ok(self, argv: Sequence[str]) -> bytes:
        done = self.run(argv, 60)
        assert done.exit_code == 0, done
        return done.stdout

    def install(self, files: Mapping[str, Path]) -> str:
        folder = f"{self.folder}/installed"
        self._ok(["mkdir", "-p", folder])
        for name, path in files.items():
            self._put(path, f"{folder}/{name}", digest_of(path))
        self._ok(["chmod", "755", *(f"{folder}/{name}" for name in files)])
        return folder

    def send(self, path: Path, digest: str) -> str:
        assert digest == digest_of(path)
        self._put(path, f"{self.folder}/{digest}", digest)
        return f"{self.folder}/{digest}"

    def _put(self, path: Path, place: str, digest: str) -> None:
        if f"{place} {digest}" not in self._there:
            with path.open("rb") as file:
                self._transport.write(file, path.stat().st_size, place)
        self._there.add(f"{place} {digest}")

    def fetch(self, path: str, limit_bytes: int) -> bytes:
        done = self.run(["od", "-An", "-v", "-tx1", path], 60)
        if done.exit_code:
            raise AgentFailed(f"{self.name}: {done.stderr}")
        content = bytes.fromhex(done.stdout.decode("ascii"))
        if len(content) > limit_bytes:
            raise AgentFailed(f"{self.name}: {path} is larger than {limit_bytes} bytes")
        return content


class AdbShell(TransportShell):
    """The same over the genuine adb client."""

    def __init__(self, adb: Adb, serial: str) -> None:
        self.name, self.arch, self.folder = "phone", "aarch64", "/data/local/tmp/runner"
        self._adb, self._serial = adb, serial
        self._there = set()
        self.commands = []
        self._ok(["mkdir", "-p", self.folder])

    def run(self, argv: Sequence[str], deadline_s: float, stdin: bytes = b"") -> Finished:
        command = ["adb", "-s", self._serial, "shell", shlex.join(argv)]
        done = subprocess.run(
            command, env=self._adb.environment, input=stdin, capture_output=True, timeout=deadline_s, check=False
        )
        return Finished(exit_code=done.returncode, stdout=done.stdout, stderr=done.stderr.decode()[-8000:])

    def _put(self, path: Path, place: str, digest: str) -> None:
        if f"{place} {digest}" not in self._there:
            done = self._adb.run("-s", self._serial, "push", str(path), place)
            assert done.returncode == 0, done
        self._there.add(f"{place} {digest}")
