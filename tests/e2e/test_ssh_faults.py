"""What goes wrong on the way to a device, made with a real OpenSSH server, and what the user is told."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from ssh_targets import once_past, refusal, spec_for
from sshd import Sshd, free_port, make_key, processes_with
from tiny_models import digest_of, onnx_bundle, slow_onnx_bundle

from targets.device import connect
from targets.errors import (
    AuthRefused,
    ConnectionLost,
    DeployError,
    DeviceTimeout,
    HostKeyRejected,
    NoPython,
    Unreachable,
    UsageError,
)
from targets.records import TargetSpec
from targets.transports.ssh_trust import offered_key, trust


@pytest.fixture
def spec(shared_sshd: Sshd, tmp_path: Path) -> TargetSpec:
    return spec_for(shared_sshd, tmp_path / "root")


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Every connection, also one that failed half-way, takes its threads with it."""
    yield
    end = time.monotonic() + 5
    while alive := [thread for thread in threading.enumerate() if "paramiko" in type(thread).__module__]:
        assert time.monotonic() < end, alive
        time.sleep(0.05)


def fingerprint(key: Path) -> str:
    shown = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True, check=True)
    return shown.stdout.split()[1]


def test_an_unknown_host_key_is_refused_with_all_that_is_needed_to_trust_it(
    shared_sshd: Sshd, spec: TargetSpec, tmp_path: Path
) -> None:
    empty = tmp_path / "known_hosts"
    found = refusal(replace(spec, known_hosts=str(empty)), HostKeyRejected, tmp_path)
    assert f"127.0.0.1 port {shared_sshd.port}" in found.message
    assert fingerprint(shared_sshd.host_key) in found.message
    assert str(empty) in found.message
    assert "deploy targets trust pi" in found.hint
    assert not empty.exists(), "nothing may be trusted in silence"
    assert not (tmp_path / "root").exists()


def test_a_key_is_trusted_once_and_a_changed_one_never(shared_sshd: Sshd, spec: TargetSpec, tmp_path: Path) -> None:
    known = tmp_path / "new" / "known_hosts"
    spec = replace(spec, known_hosts=str(known))
    offered = offered_key(spec)
    assert (offered.state, offered.fingerprint) == ("new", fingerprint(shared_sshd.host_key))
    assert not known.exists(), "asking trusts nothing"
    trust(offered)
    trust(offered_key(spec))
    assert known.read_text().count("\n") == 1
    with connect(spec, state=tmp_path) as device:
        assert device.facts().target == "pi"
    make_key(tmp_path / "other")
    known.write_text(f"[127.0.0.1]:{shared_sshd.port} {' '.join((tmp_path / 'other.pub').read_text().split()[:2])}")
    offered = offered_key(spec)
    assert offered.state == "changed"
    with pytest.raises(HostKeyRejected, match="another key"):
        trust(offered)


def test_a_changed_host_key_is_refused_and_both_keys_are_shown(
    shared_sshd: Sshd, spec: TargetSpec, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other")
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{shared_sshd.port} {' '.join((tmp_path / 'other.pub').read_text().split()[:2])}\n")
    found = refusal(replace(spec, known_hosts=str(known)), HostKeyRejected, tmp_path)
    assert "CHANGED" in found.message
    assert fingerprint(shared_sshd.host_key) in found.message and fingerprint(other) in found.message
    command = found.hint[found.hint.index("ssh-keygen") :]
    subprocess.run(command, shell=True, check=True, capture_output=True)  # noqa: S602 (as the user would)
    connect(replace(spec, known_hosts=str(known)), state=tmp_path).close()


def test_a_revoked_host_key_is_refused(shared_sshd: Sshd, spec: TargetSpec, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"{shared_sshd.known_hosts_line()}@revoked {shared_sshd.known_hosts_line()}")
    refusal(replace(spec, known_hosts=str(known)), HostKeyRejected, tmp_path)


def test_a_hashed_known_hosts_file_is_understood(shared_sshd: Sshd, spec: TargetSpec, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(shared_sshd.known_hosts_line())
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    assert "127.0.0.1" not in known.read_text()
    connect(replace(spec, known_hosts=str(known)), state=tmp_path).close()


def test_a_key_nobody_knows_is_refused_and_named(shared_sshd: Sshd, spec: TargetSpec, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    found = refusal(replace(spec, identity_file=str(stranger)), AuthRefused, tmp_path)
    assert f"{shared_sshd.user}@127.0.0.1:{shared_sshd.port}" in found.message
    assert str(stranger) in found.message and fingerprint(stranger) in found.message


def test_a_key_with_a_passphrase_is_not_asked_for(spec: TargetSpec, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", locked], check=True)
    found = refusal(replace(spec, identity_file=str(locked)), AuthRefused, tmp_path)
    assert f"{locked} (needs a passphrase: ssh-add it)" in found.message


def test_a_key_file_that_is_not_there_is_named(spec: TargetSpec, tmp_path: Path) -> None:
    found = refusal(replace(spec, identity_file=str(tmp_path / "absent")), AuthRefused, tmp_path)
    assert "absent (no such file)" in found.message


def test_a_key_held_by_an_ssh_agent_is_used(
    shared_sshd: Sshd, spec: TargetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL)
    try:
        while not place.exists():
            time.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        subprocess.run(["ssh-add", "-q", shared_sshd.identity], check=True, stderr=subprocess.DEVNULL)
        connect(replace(spec, identity_file=""), state=tmp_path).close()
    finally:
        agent.kill()
        agent.wait()


def test_nothing_listening_names_the_place(spec: TargetSpec, tmp_path: Path) -> None:
    port = free_port()
    found = refusal(replace(spec, port=port), Unreachable, tmp_path)
    assert f"nothing listens at 127.0.0.1:{port}" in found.message


def test_a_name_that_does_not_resolve_is_named(spec: TargetSpec, tmp_path: Path) -> None:
    found = refusal(replace(spec, host="no-such-device.invalid"), Unreachable, tmp_path)
    assert "no-such-device.invalid cannot be resolved" in found.message


def test_a_target_without_a_host_is_a_mistake_in_the_configuration(spec: TargetSpec, tmp_path: Path) -> None:
    refusal(replace(spec, host=""), UsageError, tmp_path)


def test_a_hung_host_is_given_up_in_the_configured_time(sshd: Sshd, tmp_path: Path) -> None:
    os.kill(sshd.process.pid, signal.SIGSTOP)
    start = time.monotonic()
    found = refusal(replace(spec_for(sshd, tmp_path / "root"), connect_timeout_s=1.0), Unreachable, tmp_path)
    assert time.monotonic() - start < 4
    assert f"127.0.0.1:{sshd.port}" in found.message and "within 1 s" in found.message


def test_a_host_that_speaks_something_else_is_unreachable(spec: TargetSpec, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        found = refusal(replace(spec, port=port), Unreachable, tmp_path)
        thread.join()
    assert "did not speak SSH" in found.message


def test_a_connection_cut_in_the_middle_of_a_push_leaves_nothing_behind(sshd: Sshd, tmp_path: Path) -> None:
    spec = spec_for(sshd, tmp_path / "root")
    source = tmp_path / "blob"
    source.write_bytes(os.urandom(20_000_000))
    with connect(spec, state=tmp_path) as device:
        with pytest.raises(ConnectionLost) as caught:
            device.push(source, digest_of(source), once_past(0.3, sshd.kill_sessions))
        assert caught.value.transient
        with pytest.raises(ConnectionLost, match="over"):
            device.facts()
    live = tmp_path / "root" / "blobs" / "sha256"
    assert list(live.iterdir()) == []
    with connect(spec, state=tmp_path) as device:
        assert device.push(source, digest_of(source)) is True
    assert (live / digest_of(source)).read_bytes() == source.read_bytes()
    assert list((tmp_path / "root").rglob("*.part")) == []


def test_a_push_over_a_frozen_link_ends_at_its_deadline(sshd: Sshd, tmp_path: Path) -> None:
    spec = replace(spec_for(sshd, tmp_path / "root"), connect_timeout_s=30.0, step_timeout_s=4.0)
    source = tmp_path / "blob"
    source.write_bytes(b"\0" * 40_000_000)

    def freeze() -> None:
        for pid in sshd.session_pids():
            os.kill(pid, signal.SIGSTOP)

    device = connect(spec, state=tmp_path)
    start = time.monotonic()
    with pytest.raises((ConnectionLost, DeviceTimeout)):
        device.push(source, digest_of(source), once_past(0.1, freeze))
    sshd.kill_sessions()
    device.close()
    assert time.monotonic() - start < 20


def test_a_connection_cut_during_a_benchmark_ends_it_on_the_device(sshd: Sshd, tmp_path: Path) -> None:
    spec = spec_for(sshd, tmp_path / "root")
    bundle = slow_onnx_bundle(tmp_path / "model", 10**9)
    with connect(spec, state=tmp_path) as device:
        for path in bundle.files:
            device.push(path, digest_of(path))
        timer = threading.Timer(1.5, sshd.kill_sessions)
        timer.start()
        with pytest.raises(ConnectionLost):
            device.bench(bundle.request(), 60)
        timer.join()
    end = time.monotonic() + 10
    while processes_with(spec.root):
        assert time.monotonic() < end, "something still runs on the device"
        time.sleep(0.05)


def test_a_jump_host_from_ssh_config_is_used_and_checked(shared_sshd: Sshd, sshd: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(shared_sshd.known_hosts_line() + sshd.known_hosts_line())
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Host jump\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {sshd.identity}\n"
        f"Host board\n HostName 127.0.0.1\n Port {shared_sshd.port}\n IdentityFile {shared_sshd.identity}\n"
        " ProxyJump jump\n"
    )
    spec = TargetSpec(
        name="pi",
        transport="ssh",
        host="board",
        ssh_config=str(config),
        known_hosts=str(known),
        python=sys.executable,
        root=str(tmp_path / "root"),
    )
    bundle = onnx_bundle(tmp_path / "model")
    with connect(spec, state=tmp_path) as device:
        assert sshd.session_pids(), "the jump host was not used"
        for path in bundle.files:
            device.push(path, digest_of(path))
        assert device.bench(bundle.request(), 60).answer.finite
    known.write_text(shared_sshd.known_hosts_line())  # the jump host is no more trusted than the device
    found = refusal(spec, HostKeyRejected, tmp_path)
    assert f"port {sshd.port}" in found.message


def test_devices_behind_one_jump_host_share_one_login_there(shared_sshd: Sshd, sshd: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(shared_sshd.known_hosts_line())
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Host jump\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {sshd.identity}\n"
        f"Host board-*\n HostName 127.0.0.1\n Port {shared_sshd.port}\n IdentityFile {shared_sshd.identity}\n"
        " ProxyJump jump\n"
    )
    specs = [
        TargetSpec(
            name=f"pi-{n}", transport="ssh", host=f"board-{n}", ssh_config=str(config), known_hosts=str(known),
            python=sys.executable, root=str(tmp_path / f"root-{n}"),
        )
        for n in range(6)
    ]  # fmt: skip
    found = offered_refusal(specs[0])
    assert f"ssh-keyscan -p {sshd.port}" in found.hint, "of a jump host the device's name says nothing"
    known.write_text(shared_sshd.known_hosts_line() + sshd.known_hosts_line())
    with connect(specs[0], state=tmp_path):
        one_login = len(sshd.session_pids())
    with ExitStack() as stack, ThreadPoolExecutor(6) as pool:
        for device in pool.map(lambda spec: connect(spec, state=tmp_path), specs):
            stack.enter_context(device)
        assert len(sshd.session_pids()) == one_login
        assert offered_key(specs[0]).state == "known"
        assert len(sshd.session_pids()) == one_login
    _until(lambda: not sshd.session_pids())


def offered_refusal(spec: TargetSpec) -> DeployError:
    with pytest.raises(HostKeyRejected) as caught:
        offered_key(spec)
    return caught.value


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_chain_of_jump_hosts_is_taken_in_order(sshd: Sshd, shared_sshd: Sshd, tmp_path: Path) -> None:
    with Sshd(tmp_path / "third", extra=f"PermitOpen 127.0.0.1:{shared_sshd.port}") as last:
        with_permit = tmp_path / "config"
        known = tmp_path / "known_hosts"
        known.write_text("".join(server.known_hosts_line() for server in (sshd, last, shared_sshd)))
        with_permit.write_text(
            f"Host first\n HostName 127.0.0.1\n Port {sshd.port}\n IdentityFile {sshd.identity}\n"
            f"Host last\n HostName 127.0.0.1\n Port {last.port}\n IdentityFile {last.identity}\n"
            f"Host board\n HostName 127.0.0.1\n Port {shared_sshd.port}\n IdentityFile {shared_sshd.identity}\n"
            " ProxyJump first,last\n"
        )
        spec = TargetSpec(
            name="pi",
            transport="ssh",
            host="board",
            ssh_config=str(with_permit),
            known_hosts=str(known),
            python=sys.executable,
            root=str(tmp_path / "root"),
        )
        # The last one may open nothing but the board, so any other order fails.
        connect(spec, state=tmp_path).close()


def test_a_jump_host_that_is_down_is_the_one_named(shared_sshd: Sshd, tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "ssh_config"
    config.write_text(f"Host jump\n HostName 127.0.0.1\n Port {port}\nHost board\n ProxyJump jump\n")
    spec = TargetSpec(name="pi", transport="ssh", host="board", ssh_config=str(config))
    assert f"nothing listens at 127.0.0.1:{port}" in refusal(spec, Unreachable, tmp_path).message


def test_a_jump_host_that_cannot_reach_the_device_says_so(shared_sshd: Sshd, tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Host jump\n HostName 127.0.0.1\n Port {shared_sshd.port}\n IdentityFile {shared_sshd.identity}\n"
        f"Host board\n HostName 127.0.0.1\n Port {port}\n ProxyJump jump\n"
    )
    spec = TargetSpec(
        name="pi", transport="ssh", host="board", ssh_config=str(config), known_hosts=str(shared_sshd.known_hosts)
    )
    assert f"cannot reach 127.0.0.1:{port}" in refusal(spec, Unreachable, tmp_path).message


def test_an_ssh_config_that_is_not_there_is_the_users_mistake(spec: TargetSpec, tmp_path: Path) -> None:
    refusal(replace(spec, ssh_config=str(tmp_path / "absent")), UsageError, tmp_path)


def test_a_home_relative_root_and_python_are_expanded_on_the_device(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "py").symlink_to(sys.executable)
    with Sshd(tmp_path / "sshd", extra=f"SetEnv HOME={home}") as server:
        spec = replace(spec_for(server, tmp_path), root="~/.edge-deploy", python="~/bin/py")
        with connect(spec, state=tmp_path) as device:
            assert device.facts().cpu_count
    assert (home / ".edge-deploy" / "blobs" / "sha256").is_dir()


def test_a_login_that_allows_no_commands_is_explained(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", extra="ForceCommand internal-sftp\nSubsystem sftp internal-sftp") as server:
        spec = replace(spec_for(server, tmp_path / "root"), step_timeout_s=5.0)
        with pytest.raises(DeployError) as caught:
            connect(spec, state=tmp_path)
        assert not isinstance(caught.value, NoPython)


def test_the_later_of_two_known_keys_counts_and_rubbish_does_not(
    shared_sshd: Sshd, spec: TargetSpec, tmp_path: Path
) -> None:
    make_key(tmp_path / "old")
    good = shared_sshd.known_hosts_line()
    old = f"{good.split()[0]} {' '.join((tmp_path / 'old.pub').read_text().split()[:2])}\n"
    known = tmp_path / "known_hosts"
    known.write_text(
        f"{old}# a comment\n\nrubbish\n{good[:40]}\n@cert-authority *.example {good.split(' ', 1)[1]}{good}"
    )
    connect(replace(spec, known_hosts=str(known)), state=tmp_path).close()
    known.write_text(good + old)
    refusal(replace(spec, known_hosts=str(known)), HostKeyRejected, tmp_path)
