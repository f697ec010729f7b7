"""A device of the lab's Python adb daemon in namespaces of its own, with all that it can become."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adb_client import Adb
from sshd import free_port

from targets.lab.adbd.state import AdbdState
from targets.lab.state import LOOPBACK

START_S = 10.0


class ScriptedDevice:
    """The daemon as the first process of a pid namespace, its root folder a small tmpfs that only it can see."""

    def __init__(self, adb: Adb, folder: Path, disk_mb: int = 32) -> None:
        self.adb = adb
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir()
        self.disk_mb = disk_mb
        self.port = free_port()
        self.serial = f"{LOOPBACK}:{self.port}"
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
        done = self.adb.run("connect", self.serial)
        return done.stdout + done.stderr

    def online(self) -> None:
        assert self.connect() == f"connected to {self.serial}\n"

    def __call__(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return self.adb.run("-s", self.serial, *arguments, text=text)

    def shell(self, line: str) -> str:
        done = self("shell", line)
        assert done.returncode == 0, done
        return done.stdout

    def inside(self, *command: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.pid), "--mount", *command], check=True)


@contextmanager
def scripted_device(adb: Adb, folder: Path) -> Iterator[ScriptedDevice]:
    device = ScriptedDevice(adb, folder)
    try:
        device.start()
        yield device
    finally:
        adb.run("disconnect", device.serial)
        device.stop()
