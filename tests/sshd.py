"""Real OpenSSH servers on loopback ports, run as the current user, for tests of everything that goes over SSH."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

SSHD = "/usr/sbin/sshd"  # sshd insists on being started by an absolute path
START_S = 10.0


def require_sshd() -> None:
    """Skip where there is no sshd; in CI that is a failure, or nobody would notice that devices are untested."""
    if Path(SSHD).exists() and shutil.which("ssh-keygen"):
        return
    reason = f"no OpenSSH server at {SSHD} (package openssh-server)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def make_key(path: Path) -> Path:
    """A new ed25519 key pair at the path; an existing one is kept."""
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", path], check=True)
    return path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@dataclass
class Sshd:
    """One server; `identity` logs in, `known_hosts` knows it. A context manager that leaves no process behind."""

    folder: Path
    extra: str = ""
    address: str = "127.0.0.1"
    inside: tuple[str, ...] = ()  # a command that runs sshd elsewhere, such as in a network namespace

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.user = getpass.getuser()
        self.host_key = make_key(self.folder / "host_key")
        self.identity = make_key(self.folder / "identity")
        self.known_hosts = self.folder / "known_hosts"
        self.known_hosts.write_text(self.known_hosts_line())

    def known_hosts_line(self) -> str:
        kind, key = (self.folder / "host_key.pub").read_text().split()[:2]
        return f"[{self.address}]:{self.port} {kind} {key}\n"

    def __enter__(self) -> Self:
        require_sshd()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(parents=True, exist_ok=True)  # privilege separation, which only root does
        authorized = self.folder / "authorized_keys"
        authorized.write_text((self.folder / "identity.pub").read_text())
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress {self.address}\nHostKey {self.host_key}\n"
            f"AuthorizedKeysFile {authorized}\nPidFile {self.folder}/sshd.pid\n"
            "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\nUseDNS no\n"
            f"PermitRootLogin yes\n{self.extra}\n"
        )
        self.log = (self.folder / "sshd.log").open("wb")
        self.process = subprocess.Popen(
            [*self.inside, SSHD, "-D", "-e", "-f", config], stderr=self.log, start_new_session=True
        )
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with socket.socket() as sock:
                if sock.connect_ex((self.address, self.port)) == 0:
                    return self
            time.sleep(0.02)
        self.stop()
        pytest.fail(f"sshd did not start: {(self.folder / 'sshd.log').read_text()}")

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        self.kill_sessions()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self.log.close()

    def session_pids(self) -> list[int]:
        """The processes of this server's sessions: its descendants that are sshd."""
        found, wanted = [], {self.process.pid}
        for pid, parent, name in sorted(_processes()):
            if parent in wanted and name.startswith("sshd"):
                wanted.add(pid)
                found.append(pid)
        return found

    def kill_sessions(self) -> None:
        """Cut every connection, as a reboot or a pulled cable with a reset does."""
        for pid in self.session_pids():
            with_signal(pid, signal.SIGKILL)


def with_signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _processes() -> list[tuple[int, int, str]]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue  # it ended while we looked
        name = text[text.index("(") + 1 : text.rindex(")")]
        found.append((int(stat.parent.name), int(text.rsplit(")", 1)[1].split()[1]), name))
    return found


def processes_with(text: str) -> list[int]:
    """Processes whose command line contains the text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
