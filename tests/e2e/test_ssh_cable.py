"""A link that dies without a word: a pulled cable, a dropped network. Needs root, for a network namespace."""

import os
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from ssh_targets import once_past, refusal, spec_for
from sshd import Sshd, require_sshd
from tiny_models import digest_of, slow_onnx_bundle

from targets.device import connect
from targets.errors import ConnectionLost, Unreachable


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[tuple[Sshd, Callable[[], object]]]:
    """A server behind a link of its own, and what pulls the cable: packets then vanish without a word."""
    require_sshd()
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("a network namespace needs root and iproute2")
    name = f"edge{secrets.token_hex(4)}"
    run = partial(subprocess.run, check=True)
    run(["ip", "netns", "add", name])
    try:
        run(["ip", "link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name])
        run(["ip", "addr", "add", "198.18.77.1/30", "dev", f"{name}h"])  # the range for benchmarks, RFC 2544
        run(["ip", "link", "set", f"{name}h", "up"])
        run(["ip", "-n", name, "addr", "add", "198.18.77.2/30", "dev", "eth0"])
        run(["ip", "-n", name, "link", "set", "eth0", "up"])
        inside = ("ip", "netns", "exec", name)
        with Sshd(tmp_path / "far", address="198.18.77.2", inside=inside) as server:
            yield server, lambda: run(["ip", "-n", name, "link", "set", "eth0", "down"])
    finally:
        # Explicitly: unanswered TCP connections keep the namespace alive for minutes, and with it the link.
        subprocess.run(["ip", "link", "del", f"{name}h"], check=False)
        run(["ip", "netns", "del", name])


def test_a_cable_pulled_in_the_middle_of_a_push_is_noticed(
    cable: tuple[Sshd, Callable[[], object]], tmp_path: Path
) -> None:
    server, pull = cable
    spec = replace(spec_for(server, tmp_path / "root"), host=server.address, connect_timeout_s=1.5)
    source = tmp_path / "blob"
    source.write_bytes(os.urandom(40_000_000))
    with connect(spec, state=tmp_path) as device:
        start = time.monotonic()
        with pytest.raises(ConnectionLost):
            device.push(source, digest_of(source), once_past(0.1, pull))
    assert time.monotonic() - start < 8  # the kernel gives up within 5 s
    assert list((tmp_path / "root" / "blobs" / "sha256").iterdir()) == []


def test_a_cable_pulled_during_a_benchmark_is_noticed(cable: tuple[Sshd, Callable[[], object]], tmp_path: Path) -> None:
    server, pull = cable
    spec = replace(spec_for(server, tmp_path / "root"), host=server.address, connect_timeout_s=1.5)
    bundle = slow_onnx_bundle(tmp_path / "model", 10**9)
    with connect(spec, state=tmp_path) as device:
        for path in bundle.files:
            device.push(path, digest_of(path))
        threading.Timer(1.0, pull).start()
        start = time.monotonic()
        with pytest.raises(ConnectionLost):
            device.bench(bundle.request(), 60)
    assert time.monotonic() - start < 15


def test_a_host_whose_packets_are_dropped_is_given_up_in_the_configured_time(
    cable: tuple[Sshd, Callable[[], object]], tmp_path: Path
) -> None:
    server, pull = cable
    pull()
    start = time.monotonic()
    spec = replace(spec_for(server, tmp_path / "root"), host=server.address, connect_timeout_s=1.0)
    refusal(spec, Unreachable, tmp_path)
    assert time.monotonic() - start < 3
