"""Finding adb and its server: what is used, what is started, and what is left alone."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from adb_client import adb_server, require_adb
from sshd import free_port

from targets.errors import AuthRefused, DeployError, EnvironmentFault, Unreachable
from targets.records import TargetSpec
from targets.transports.adb_attach import explain_state, serial_of
from targets.transports.adb_client import AdbClient
from targets.transports.adb_server import server_place

SPEC = TargetSpec(name="ph", transport="adb", host="10.0.0.7")


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """A port where no server runs; one that was started there is ended."""
    require_adb()
    found = free_port()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(found))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield found
    with socket.socket() as sock:
        if not sock.connect_ex(("127.0.0.1", found)):
            sock.sendall(b"0009host:kill")


def test_no_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="ph: there is no program `adb`") as caught:
        AdbClient("ph")
    assert "apt-get install" in caught.value.hint


def test_a_server_is_started_where_none_runs(port: int) -> None:
    assert AdbClient("ph").states() == {}
    with socket.create_connection(("127.0.0.1", port)):
        pass
    assert AdbClient("ph").states() == {}


def test_a_server_that_runs_is_used_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with adb_server(tmp_path) as server:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", server.environment["ANDROID_ADB_SERVER_PORT"])
        assert AdbClient("ph").states() == {}
        assert server.run("devices").stdout.startswith("List of devices attached")


def test_a_server_of_another_version_is_not_ended(port: int) -> None:
    """The genuine client would end it, and with it everybody's connections."""
    asked: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", port))) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                asked.append(client.recv(100))
                client.sendall(b"OKAY00040020")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(EnvironmentFault, match=f"server at port {port} has version 32, this adb") as caught:
            AdbClient("ph")
        thread.join()
    assert asked == [b"000chost:version"] and "ANDROID_ADB_SERVER_PORT" in caught.value.hint


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, ("127.0.0.1", 5037)),
        ({"ANDROID_ADB_SERVER_PORT": "5099", "ANDROID_ADB_SERVER_ADDRESS": "10.0.0.2"}, ("10.0.0.2", 5099)),
        ({"ADB_SERVER_SOCKET": "tcp:5098", "ANDROID_ADB_SERVER_PORT": "5099"}, ("127.0.0.1", 5098)),
        ({"ADB_SERVER_SOCKET": "tcp:adb.lan:5098"}, ("adb.lan", 5098)),
        ({"ADB_SERVER_SOCKET": "localfilesystem:/run/adb"}, "/run/adb"),
        ({"ADB_SERVER_SOCKET": "localabstract:adb"}, "\0adb"),
    ],
)
def test_the_server_is_where_adb_looks_for_it(variables: dict[str, str], place: object) -> None:
    found = server_place(variables)
    assert found is not None and found.address == place


def test_a_place_that_only_adb_understands_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    require_adb()
    monkeypatch.setenv("ADB_SERVER_SOCKET", "vsock:3:5037")
    with pytest.raises(EnvironmentFault, match="where the adb server is cannot be understood"):
        AdbClient("ph")


def test_a_call_has_a_deadline(port: int) -> None:
    with pytest.raises(TimeoutError):
        AdbClient("ph").call("wait-for-device", limit_s=0.3)


@pytest.mark.parametrize(
    ("state", "kind", "action"),
    [
        ("unauthorized", AuthRefused, "Always allow"),
        ("offline", Unreachable, "wireless debugging off and on"),
        ("recovery", Unreachable, "adb -s S reboot"),
        ("sideload", Unreachable, "adb -s S reboot"),
        ("bootloader", Unreachable, "fastboot reboot"),
        (
            "no permissions (user in plugdev group; are your udev rules wrong?); see [http://developer.android.com]",
            EnvironmentFault,
            "plugdev",
        ),
    ],
)
def test_every_state_has_its_human_action(state: str, kind: type[DeployError], action: str) -> None:
    found = explain_state(SPEC, "S", state)
    assert type(found) is kind and action in found.hint and found.message.startswith("ph: ")


def test_a_target_is_known_by_its_serial_or_its_address() -> None:
    assert serial_of(SPEC) == "10.0.0.7:5555"
    assert serial_of(TargetSpec(name="ph", transport="adb", host="fe80::1", port=37001)) == "[fe80::1]:37001"
    assert serial_of(TargetSpec(name="ph", transport="adb", serial="28A1FDH2")) == "28A1FDH2"
