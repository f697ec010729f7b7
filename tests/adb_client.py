"""The genuine adb client with a server of its own, and a device of the lab's Python daemon in namespaces of its own."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sshd import free_port

from targets.lab.adbd.state import AdbdState

SERIAL_HOST = "127.0.0.1"
START_S = 10.0


def require_adb() -> None:
    """Skip where there is no adb; in CI that is a failure, or nobody would notice."""
    if shutil.which("adb"):
        return
    if os.environ.get("CI"):
        pytest.fail("no adb here")
    pytest.skip("no adb here")


class Adb:
    """A client whose server, port and keys are nobody else's."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.environment = {**os.environ, "HOME": str(home), "ANDROID_ADB_SERVER_PORT": str(self.port)}

    def __call__(self, *arguments: str, text: str = "", within_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["adb", *arguments],
            env=self.environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )

    @property
    def public_key(self) -> str:
        return (self.home / ".android" / "adbkey.pub").read_text()

    def state(self, serial: str) -> str:
        """What the server thinks of the device; empty when it does not know it."""
        lines = self("devices").stdout.splitlines()[1:]
        return next((line.split()[1] for line in lines if line.split()[:1] == [serial]), "")

    def wait_for(self, serial: str, state: str, within_s: float = 15.0) -> None:
        end = time.monotonic() + within_s
        while (now := self.state(serial)) != state:
            assert time.monotonic() < end, f"{serial} is {now!r}, not {state!r}"
            time.sleep(0.02)


@contextmanager
def adb_server(home: Path) -> Iterator[Adb]:
    require_adb()
    adb = Adb(home)
    try:
        adb("start-server")
        yield adb
    finally:
        adb("-P", str(adb.port), "kill-server")


class AndroidDevice:
    """The daemon as the first process of a pid namespace, its root folder a small tmpfs that only it can see."""

    def __init__(self, adb: Adb, folder: Path, disk_mb: int = 32) -> None:
        self.adb = adb
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir()
        self.disk_mb = disk_mb
        self.port = free_port()
        self.serial = f"{SERIAL_HOST}:{self.port}"
        self.process: subprocess.Popen[str] | None = None
        (folder / "properties").write_text(
            "ro.product.name=panther\nro.product.model=Pixel 7\nro.product.device=panther\nsys.boot_completed=1\n"
        )

    def start(self) -> None:
        root = self.root
        daemon = f"exec {sys.executable} -I -m targets.lab.adbd --root {root} --port {self.port}"
        files = f"--state {self.folder}/state --properties {self.folder}/properties --commands {root}/system/bin"
        script = f"mount -t tmpfs -o size={self.disk_mb}m tmpfs {root} && {daemon} {files}"
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout
        assert self.process.stdout.readline() == f"listening on {self.port}\n", self.log()

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.ended()

    def ended(self) -> int:
        """Wait for its end; the exit status of the daemon."""
        assert self.process
        code = self.process.wait(START_S)
        assert self.process.stdout
        self.process.stdout.close()
        return code

    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def pid(self) -> int:
        """The daemon itself; the process that we started is only its parent."""
        assert self.process
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def become(self, state: AdbdState) -> None:
        state.save(self.folder / "state")
        if self.process:
            os.kill(self.pid, signal.SIGHUP)

    def connect(self) -> str:
        """What `adb connect` says, which is all that it says: its exit status is 0 even when it fails."""
        done = self.adb("connect", self.serial)
        return done.stdout + done.stderr

    def online(self) -> None:
        assert self.connect() == f"connected to {self.serial}\n"

    def __call__(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return self.adb("-s", self.serial, *arguments, text=text)

    def shell(self, line: str) -> str:
        done = self("shell", line)
        assert done.returncode == 0, done
        return done.stdout

    def inside(self, *command: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.pid), "--mount", *command], check=True)


@contextmanager
def android_device(adb: Adb, folder: Path) -> Iterator[AndroidDevice]:
    device = AndroidDevice(adb, folder)
    try:
        device.start()
        yield device
    finally:
        adb("disconnect", device.serial)
        device.stop()
