"""The lab's Python adb daemon, by what the genuine adb client says of it in every state."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from adb_client import Adb, adb_server
from labs import require_lab
from scripted_device import ScriptedDevice, scripted_device

from targets.lab.adbd import wire
from targets.lab.adbd.state import AdbdState
from targets.lab.adbd.wire import Packet, PacketReader

REMOTE = "/data/local/tmp/blob"


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    require_lab("ssh")  # which needs the same rights
    with adb_server(tmp_path_factory.mktemp("adb-home")) as client:
        yield client


@pytest.fixture
def device(adb: Adb, tmp_path: Path) -> Iterator[ScriptedDevice]:
    with scripted_device(adb, tmp_path) as device:
        yield device
        assert "Traceback" not in device.log()


@pytest.fixture
def online(device: ScriptedDevice) -> ScriptedDevice:
    device.online()
    return device


def random_file(folder: Path, size_bytes: int) -> Path:
    path = folder / "blob"
    path.write_bytes(os.urandom(size_bytes))
    return path


def test_it_is_named_and_files_come_back_as_they_went(online: ScriptedDevice, tmp_path: Path) -> None:
    listed = online.adb.run("devices", "-l").stdout
    assert f"{online.serial}        device product:panther model:Pixel_7 device:panther" in listed
    blob = random_file(tmp_path, 20_000_000)
    blob.chmod(0o744)
    os.utime(blob, (1_600_000_000, 1_600_000_000))
    assert online("push", str(blob), REMOTE).returncode == 0
    assert online.shell(f"stat -c '%a %s %Y' .{REMOTE}") == "777 20000000 1600000000\n"
    assert online("pull", REMOTE, str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == blob.read_bytes()
    assert "0 files pushed, 1 skipped" in online("push", "--sync", str(blob), REMOTE).stdout


def test_folders_go_both_ways_and_what_is_not_there_is_named(online: ScriptedDevice, tmp_path: Path) -> None:
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    names = [f"inner/{number:04}" for number in range(300)] + ["ü 1"]
    for name in names:
        (tmp_path / "tree" / name).write_text(name)
    assert online("push", str(tmp_path / "tree"), "/data").returncode == 0
    assert online("pull", "/data", str(tmp_path / "back")).returncode == 0
    found = {str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*") if path.is_file()}
    assert found == set(names)
    missing = online("pull", "/data/none", str(tmp_path / "none"))
    assert missing.returncode == 1
    assert "No such file or directory" in missing.stdout + missing.stderr


def test_programs_have_input_output_errors_and_an_exit_code(online: ScriptedDevice) -> None:
    done = online("shell", "cat; echo wrong >&2; exit 7", text="said\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "said\n", "wrong\n")
    assert online("shell", "kill -9 $$").returncode == 128 + 9
    done = online("shell", "head -c 3; exit 5", text="x" * 3_000_000)  # ends with most of its input unread
    assert (done.returncode, done.stdout) == (5, "xxx")
    assert online("exec-out", "printf 'a\\nb'").stdout == "a\nb"
    assert online.shell("seq 1 200000").splitlines() == [str(number) for number in range(1, 200_001)]
    assert online("shell", "-t", "-t", "tty").stdout.startswith("/dev/pts/")


def test_properties_are_read_and_set(online: ScriptedDevice) -> None:
    assert online.shell("getprop ro.product.model; getprop sys.boot_completed; getprop none given") == (
        "Pixel 7\n1\ngiven\n"
    )
    online.shell("setprop ro.product.model 'Pixel 8'")
    assert "[ro.product.model]: [Pixel 8]\n" in online.shell("getprop")
    online.adb.run("disconnect", online.serial)
    online.online()
    assert "model:Pixel_8" in online.adb.run("devices", "-l").stdout


def test_a_program_ends_with_its_client_and_nothing_remains_uncollected(online: ScriptedDevice) -> None:
    command = ["adb", "-s", online.serial, "shell", "sleep 1000 & trap '' HUP; echo started; sleep 2000"]
    client = subprocess.Popen(command, env=online.adb.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with client:
        assert client.stdout and client.stdout.readline() == b"started\n"
        assert "sleep 2000" in online.shell("ps -e -o args=")
        client.kill()
    online.shell("(sleep 0.2 &) >/dev/null 2>&1")  # an orphan
    end = time.monotonic() + 5
    while time.monotonic() < end:
        left = online.shell("ps -e -o stat=,args=")
        if "sleep" not in left and "defunct" not in left:
            return
        time.sleep(0.05)
    pytest.fail(left)


def test_unauthorized_until_the_user_says_yes_and_again_when_that_is_taken_back(device: ScriptedDevice) -> None:
    device.become(AdbdState(access="keys"))
    assert f"failed to authenticate to {device.serial}" in device.connect()
    assert device.adb.state(device.serial) == "unauthorized"
    refused = device("shell", "true")
    assert refused.returncode == 1
    assert "device unauthorized" in refused.stderr
    device.become(AdbdState(access="keys", user_allows=True))
    device.adb.wait_for(device.serial, "device", within_s=3)
    device.adb.run("disconnect", device.serial)
    device.online()  # now the key is known
    assert device.shell("echo in") == "in\n"
    device.become(AdbdState(access="keys"))
    device.adb.wait_for(device.serial, "unauthorized")


def test_only_the_owner_of_an_authorized_key_gets_in(device: ScriptedDevice, tmp_path: Path) -> None:
    assert device.adb.run("keygen", str(tmp_path / "other")).returncode == 0
    other = (tmp_path / "other.pub").read_text()
    device.become(AdbdState(access="keys", authorized_keys=(other,)))
    assert "failed to authenticate" in device.connect()
    device.adb.run("disconnect", device.serial)
    device.become(AdbdState(access="keys", authorized_keys=(other, device.adb.public_key)))
    device.online()
    assert device.shell("echo in") == "in\n"


def test_offline_is_accepted_and_never_answered(device: ScriptedDevice) -> None:
    device.become(AdbdState(access="offline"))
    assert "failed to connect" in device.connect()  # after 10 s
    assert device.adb.state(device.serial) == "offline"
    assert "device offline" in device("shell", "true").stderr
    device.become(AdbdState())
    device.adb.run("disconnect", device.serial)
    device.online()
    device.become(AdbdState(access="offline"))  # also for a connection that stands
    device.adb.wait_for(device.serial, "offline")


def test_a_device_that_is_not_there_fails_with_exit_status_0(device: ScriptedDevice) -> None:
    device.stop()
    done = device.adb.run("connect", device.serial)
    assert "Connection refused" in done.stdout
    assert done.returncode == 0


def test_a_cut_push_leaves_a_part_and_the_device_comes_back(online: ScriptedDevice, tmp_path: Path) -> None:
    blob = random_file(tmp_path, 20_000_000)
    online.become(AdbdState(cut_after_bytes=5_000_000))
    pushed = online("push", str(blob), REMOTE)
    assert pushed.returncode == 1
    online.adb.wait_for(online.serial, "device")
    assert 4_000_000 < int(online.shell(f"stat -c %s .{REMOTE}")) < 5_000_000
    assert online("push", str(blob), REMOTE).returncode == 0  # it was for once


def test_a_cut_pull_fails_too(online: ScriptedDevice, tmp_path: Path) -> None:
    online.shell("head -c 9000000 /dev/zero > zeros")
    online.become(AdbdState(cut_after_bytes=3_000_000))
    assert online("pull", "/zeros", str(tmp_path / "zeros")).returncode == 1


def test_a_full_disk_is_named_and_the_part_removed(online: ScriptedDevice, tmp_path: Path) -> None:
    blob = random_file(tmp_path, online.disk_mb * 1024 * 1024 + 1)
    pushed = online("push", str(blob), REMOTE)
    assert pushed.returncode == 1
    assert "No space left on device" in pushed.stdout + pushed.stderr
    assert online("shell", f"test -e .{REMOTE}").returncode == 1
    assert "No space left on device" in online("shell", "cat /dev/zero > filler").stderr


def test_a_read_only_disk_is_named(online: ScriptedDevice, tmp_path: Path) -> None:
    online.inside("mount", "-o", "remount,ro", str(online.root))
    pushed = online("push", str(random_file(tmp_path, 1000)), REMOTE)
    assert pushed.returncode == 1
    assert "Read-only file system" in pushed.stdout + pushed.stderr
    assert "Read-only file system" in online("shell", "touch x").stderr


def test_a_reboot_ends_it_and_what_was_on_its_disk(online: ScriptedDevice) -> None:
    online.shell("echo here > note")
    assert online("reboot").returncode == 0
    assert online.ended() == 0
    online.start()
    online.adb.run("disconnect", online.serial)
    online.online()
    assert "No such file" in online("shell", "cat note").stderr


class RawClient:
    """Speaks the protocol packet by packet, rightly or wrongly."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = PacketReader()
        self.reader.limit_bytes = wire.MAX_PAYLOAD_BYTES

    def send(self, command: int, arg0: int, arg1: int, payload: bytes = b"", *, checksum: bool = False) -> None:
        packet = Packet(command=command, arg0=arg0, arg1=arg1, payload=payload)
        self.sock.sendall(packet.pack(checksum=checksum))

    def receive(self) -> Packet | None:
        """None at the end of the connection."""
        while (packet := self.reader.next()) is None:
            try:
                chunk = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not chunk:
                return None
            self.reader.feed(chunk)
        return packet

    def handshake(self, version: int = wire.VERSION) -> None:
        self.send(wire.CNXN, version, 256 * 1024, b"host::", checksum=version < wire.VERSION)
        answer = self.receive()
        assert answer and answer.command == wire.CNXN

    def open(self, service: bytes, *, checksum: bool = False) -> int:
        self.send(wire.OPEN, 1, 0, service + b"\0", checksum=checksum)
        answer = self.receive()
        assert answer and (answer.command, answer.arg1) == (wire.OKAY, 1)
        return answer.arg0

    def until_closed(self, service: bytes, said: bytes) -> bytes:
        """What a service answers in all."""
        number = self.open(service)
        self.send(wire.WRTE, 1, number, said)
        answer = b""
        while (packet := self.receive()) and packet.command != wire.CLSE:
            if packet.command == wire.WRTE:
                answer += packet.payload
                self.send(wire.OKAY, 1, number)
        assert packet, "the whole connection was ended"
        return answer


@contextmanager
def raw_client(device: ScriptedDevice) -> Iterator[RawClient]:
    with socket.create_connection(("127.0.0.1", device.port), timeout=5) as sock:
        yield RawClient(sock)


def test_an_end_is_answered_and_an_old_client_gets_checksums(device: ScriptedDevice) -> None:
    with raw_client(device) as client:
        client.reader.checksums = True
        client.handshake(version=0x01000000)
        number = client.open(b"shell:echo hi; sleep 100", checksum=True)
        said = client.receive()
        assert said and (said.command, said.payload) == (wire.WRTE, b"hi\n")
        client.send(wire.CLSE, 1, number, checksum=True)
        answer = client.receive()
        assert answer and (answer.command, answer.arg0, answer.arg1) == (wire.CLSE, number, 1)
        client.send(wire.OPEN, 2, 0, b"root:\0", checksum=True)
        answer = client.receive()
        assert answer and (answer.command, answer.arg0, answer.arg1) == (wire.CLSE, 0, 2)


def test_a_client_that_goes_on_sending_hears_why_its_file_is_refused(device: ScriptedDevice) -> None:
    with raw_client(device) as client:
        client.handshake()
        number = client.open(b"sync:")
        path = b"/system/bin/getprop/x,33188"
        client.send(wire.WRTE, 1, number, b"SEND" + len(path).to_bytes(4, "little") + path + b"DATA\1\0\0\0a")
        okay, fail = client.receive(), client.receive()
        assert okay and okay.command == wire.OKAY
        assert fail and fail.payload == b"FAIL\x25\0\0\0couldn't create file: Not a directory"
        client.send(wire.OKAY, 1, number)
        for piece, answer in ((b"DATA\1\0\0\0b", wire.OKAY), (b"DONE\0\0\0\0", wire.OKAY)):
            client.send(wire.WRTE, 1, number, piece)
            packet = client.receive()
            assert packet and packet.command == answer
        packet = client.receive()
        assert packet and packet.command == wire.CLSE


def test_no_client_however_broken_takes_the_daemon_along(online: ScriptedDevice) -> None:
    with raw_client(online) as client:  # without its magic number
        client.sock.sendall(os.urandom(4096))
        assert client.receive() is None
    with raw_client(online) as client:  # more than the handshake admits
        client.send(wire.CNXN, wire.VERSION, 4096, bytes(5000))
        assert client.receive() is None
    with raw_client(online) as client:  # does not wait for OKAY
        client.handshake()
        number = client.open(b"shell:exec sleep 100")
        with pytest.raises(OSError):
            for _ in range(1000):
                client.send(wire.WRTE, 1, number, bytes(100_000))
    with raw_client(online) as client:  # 4 GB for a program, and a path of that length
        client.handshake()
        assert client.until_closed(b"shell,v2,raw:cat", b"\0\xff\xff\xff\xff") == b""
        assert client.until_closed(b"sync:", b"RECV\xff\xff\xff\xff") == b"FAIL\x0d\0\0\0path too long"
    with raw_client(online) as client:  # gone in the middle of a packet
        client.sock.sendall(Packet(command=wire.CNXN, arg0=wire.VERSION, arg1=4096).pack(checksum=False)[:20])
    assert online.shell("echo still here") == "still here\n"
