"""The genuine adb client with a server of the test's own: never the one at the default port, which others may use."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from targets.lab.state import LOOPBACK

_DEFAULT_PORT = 5037
_START_S = 20.0  # a busy machine takes a second


def require_adb() -> None:
    """Skip where there is no adb client; in CI that is a failure, or nobody would notice."""
    if shutil.which("adb"):
        return
    reason = "no adb client here: apt-get install --no-install-recommends adb"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adb:
    """Runs `adb` commands against one server."""

    environment: dict[str, str]

    @property
    def public_key(self) -> str:
        return (Path(self.environment["HOME"]) / ".android" / "adbkey.pub").read_text()

    def state(self, serial: str) -> str:
        """What the server thinks of the device; empty when it does not know it."""
        lines = self.run("devices").stdout.splitlines()[1:]
        return next((line.split()[1] for line in lines if line.split()[:1] == [serial]), "")

    def wait_for(self, serial: str, state: str, within_s: float = 15.0) -> None:
        end = time.monotonic() + within_s
        while (now := self.state(serial)) != state:
            assert time.monotonic() < end, f"{serial} is {now!r}, not {state!r}"
            time.sleep(0.02)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(["adb", *arguments], text=True, env=self.environment, **pipes)

    def run(self, *arguments: str, text: str = "", timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """To its end; `text` is its standard input."""
        options = {"input": text, "capture_output": True, "text": True, "check": False}
        return subprocess.run(["adb", *arguments], timeout=timeout_s, env=self.environment, **options)

    def shell(self, serial: str, command: str) -> str:
        """What a command that succeeds prints."""
        done = self.run("-s", serial, "shell", command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def connect(self, serial: str, within_s: float = 30.0) -> None:
        """Connect, anew if need be: left alone, a server tries again only every ten seconds."""
        end = time.monotonic() + within_s
        while self.run("-s", serial, "get-state").stdout.strip() != "device":
            assert time.monotonic() < end, self.run("devices").stdout
            self.run("disconnect", serial)
            self.run("connect", serial)


@contextmanager
def adb_server(folder: Path) -> Iterator[Adb]:
    """A server with its keys in `folder`, ended with exactly its own process."""
    require_adb()
    with socket.socket() as scout:
        scout.bind((LOOPBACK, 0))
        port = scout.getsockname()[1]
    assert port != _DEFAULT_PORT
    environment = {**os.environ, "HOME": str(folder), "ANDROID_ADB_SERVER_PORT": str(port)}
    with (folder / "adb.log").open("wb") as log:
        server = subprocess.Popen(["adb", "nodaemon", "server"], env=environment, stdout=log, stderr=log)
    try:
        _await_port(port)
        yield Adb(environment=environment)
    finally:
        server.kill()
        server.wait()


def _await_port(port: int) -> None:
    end = time.monotonic() + _START_S
    while True:
        with socket.socket() as sock:
            if not sock.connect_ex((LOOPBACK, port)):
                return
        assert time.monotonic() < end, "the adb server does not start"
        time.sleep(0.02)
