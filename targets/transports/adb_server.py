"""The words that every adb client has with the server on this machine: a request of four hex digits' length, an answer.

Saves a process for each look at the devices and for each line of a device's shell; what goes through the genuine
program is said in `targets.transports.adb_client`. Source: packages/modules/adb, OVERVIEW.TXT and SERVICES.TXT.
"""

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

ANSWER_S = 3.0  # a server answers about itself within a millisecond; one that does not, hangs


class ServerRefused(ConnectionError):
    """The server said no, and why; for a device, that it is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an adb server listens."""

    family: socket.AddressFamily
    address: tuple[str, int] | str

    def __str__(self) -> str:
        return f"port {self.address[1]}" if isinstance(self.address, tuple) else self.address.replace("\0", "@")

    def connect(self, limit_s: float) -> socket.socket:
        """Raises OSError, ConnectionRefusedError where none listens."""
        if isinstance(self.address, tuple):
            return socket.create_connection(self.address, timeout=limit_s)
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(limit_s)
            sock.connect(self.address)
        except OSError:
            sock.close()
            raise
        return sock


def server_place(variables: Mapping[str, str]) -> Place | None:
    """Where adb looks for its server; None when only adb can say."""
    told = variables.get("ADB_SERVER_SOCKET", "")
    if found := re.fullmatch(r"tcp:(?:([^:]+):)?(\d+)", told):
        return Place(family=socket.AF_INET, address=(found.group(1) or "127.0.0.1", int(found.group(2))))
    if found := re.fullmatch(r"(localfilesystem|localabstract|local):(.+)", told):
        path = found.group(2) if found.group(1) != "localabstract" else f"\0{found.group(2)}"
        return Place(family=socket.AF_UNIX, address=path)
    if told:
        return None
    host = variables.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1"
    port = variables.get("ANDROID_ADB_SERVER_PORT") or "5037"
    return Place(family=socket.AF_INET, address=(host, int(port))) if port.isdecimal() else None


def served_version(place: Place) -> int | None:
    """The version of the server there; None when none listens. 0 for something else than an adb server."""
    try:
        answer = ask(place, "host:version")
    except (ConnectionRefusedError, FileNotFoundError):
        return None
    except OSError:
        return 0
    return int(answer, 16) if re.fullmatch(r"[0-9a-fA-F]{4}", answer) else 0


def ask(place: Place, request: str) -> str:
    """What the server says; raises ServerRefused, or OSError when it does not say it in time."""
    with place.connect(ANSWER_S) as sock:
        end = time.monotonic() + ANSWER_S
        _request(sock, request, end)
        size = _exactly(sock, 4, end)
        if not re.fullmatch(rb"[0-9a-fA-F]{4}", size):
            raise OSError(f"not an adb server's answer: {size!r}")
        return _exactly(sock, int(size, 16), end).decode("utf-8", "replace")


def open_service(place: Place, serial: str, service: str, limit_s: float) -> socket.socket:
    """A connection to a service of a device, such as a shell; raises ServerRefused or OSError."""
    sock = place.connect(ANSWER_S)
    try:
        end = time.monotonic() + limit_s
        _request(sock, f"host:transport:{serial}", end)
        _request(sock, service, end)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _request(sock: socket.socket, words: str, end: float) -> None:
    data = words.encode("utf-8", "surrogateescape")
    sock.settimeout(max(0.01, end - time.monotonic()))
    sock.sendall(f"{len(data):04x}".encode() + data)
    status = _exactly(sock, 4, end)
    if status == b"FAIL":
        size = _exactly(sock, 4, end)
        raise ServerRefused(_exactly(sock, int(size, 16), end).decode("utf-8", "replace"))
    if status != b"OKAY":
        raise OSError(f"not an adb server's answer: {status!r}")


def _exactly(sock: socket.socket, size: int, end: float) -> bytes:
    data = b""
    while len(data) < size:
        sock.settimeout(max(0.01, end - time.monotonic()))
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise ServerRefused("the adb server has hung up")
        data += chunk
    return data
