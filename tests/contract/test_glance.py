"""What a glance tells is what the agent tells, over this machine and over a real SSH server."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from releases import make_release
from sshd import Sshd

from targets.device import Device, connect
from targets.errors import AgentFailed, NoPython
from targets.glance import glance
from targets.records import TargetSpec
from targets.transports.local import LocalTransport

ROOTS = ["device root", "it's $HOME `x`"]


@pytest.fixture(params=["local", "ssh"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> TargetSpec:
    found = TargetSpec(name="dev", root=str(tmp_path / ROOTS[0]), python=sys.executable, step_timeout_s=30.0)
    if request.param == "local":
        return found
    server: Sshd = request.getfixturevalue("shared_sshd")
    login = {"identity_file": str(server.identity), "known_hosts": str(server.known_hosts)}
    return replace(found, transport="ssh", host="127.0.0.1", port=server.port, **login)


def same(device: Device, spec: TargetSpec, state: Path) -> None:
    """In a connection of its own, in which no agent is started."""
    told = device.releases.installed()
    with connect(replace(spec, python="/no/python"), state=state, lazily=True) as another:
        seen = another.glance()
    assert seen
    assert (seen.current, seen.confirmed, seen.pending) == (told.current, told.confirmed, told.pending)
    assert (set(seen.keys), seen.boot_id) == (set(told.keys), told.boot_id)
    assert seen.leased == bool(told.lease_owner)


def test_it_is_what_the_agent_says(spec: TargetSpec, tmp_path: Path) -> None:
    first, second = make_release(tmp_path, 1), make_release(tmp_path, 2)
    with connect(spec, state=tmp_path / "state") as device:
        store = device.releases
        same(device, spec, tmp_path / "state")
        first.on(device)
        store.activate(first.id)
        same(device, spec, tmp_path / "state")
        store.confirm(first.id)
        same(device, spec, tmp_path / "state")
        second.on(device)
        store.lease("laptop", 60)
        store.activate(second.id)
        same(device, spec, tmp_path / "state")
        store.release_lease("laptop")
        store.revert(first.id)
        for _ in range(2):
            key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
            if not store.installed().keys:
                store.trust(key)
            same(device, spec, tmp_path / "state")


@pytest.mark.parametrize("root", ROOTS)
def test_a_device_that_has_nothing(spec: TargetSpec, tmp_path: Path, root: str) -> None:
    with connect(replace(spec, root=str(tmp_path / root)), state=tmp_path, lazily=True) as device:
        seen = device.glance()
    assert seen and (seen.current, seen.confirmed, seen.keys, seen.leased) == ("", "", (), False)
    assert seen.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert not (tmp_path / root).exists()  # looking makes nothing


def test_a_home_is_the_devices(spec: TargetSpec, tmp_path: Path) -> None:
    name = f"~/{tmp_path.name}-glance"
    with connect(replace(spec, root=name), state=tmp_path, lazily=True) as device:
        seen = device.glance()
    assert seen and seen.current == ""


def test_a_session_is_opened_by_what_needs_it_and_says_then_what_is_wrong(spec: TargetSpec, tmp_path: Path) -> None:
    with connect(replace(spec, python="/no/python"), state=tmp_path, lazily=True) as device:
        assert not device.over
        with pytest.raises((NoPython, AgentFailed)):
            device.facts()


def test_a_link_that_leads_nowhere_or_elsewhere_is_no_release(tmp_path: Path) -> None:
    transport = LocalTransport(TargetSpec(name="dev", root=str(tmp_path / "root")), tmp_path)
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "current").symlink_to("releases/" + "a" * 64)
    (tmp_path / "root" / "confirmed").symlink_to("../elsewhere")
    transport.open()
    seen = glance(transport)
    transport.close()
    assert seen and (seen.current, seen.confirmed) == ("", "")
