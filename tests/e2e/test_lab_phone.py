"""Phones with the lab's own adb daemon, as devices of a lab: states by faults, a real disk, reboots, nothing left."""

import os
import secrets
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from adb_client import Adb, adb_server
from labs import lab_namespaces, remains, require_lab, running, surroundings

from targets.errors import UsageError
from targets.lab.faults import inflict
from targets.lab.lab import Wanted, down
from targets.lab.state import LOOPBACK, LabState, load_lab

REMOTE = "/data/local/tmp/blob"


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    with adb_server(tmp_path_factory.mktemp("adb")) as client:
        yield client


@pytest.fixture(scope="module")
def lab() -> Iterator[LabState]:
    require_lab("adbd", "ssh")
    with running(Wanted(counts={"adbd": 2, "ssh": 1}, disk_bytes=32_000_000), f"test-{secrets.token_hex(4)}") as lab:
        yield lab


@pytest.fixture
def phone(lab: LabState, adb: Adb) -> Iterator[str]:
    """The first phone, connected and well, by its serial number."""
    serial = f"{LOOPBACK}:{lab.device('phone-0').port}"
    inflict(load_lab(lab.name), "phone-0", "restore")
    adb.connect(serial)
    yield serial
    inflict(load_lab(lab.name), "phone-0", "restore")


def test_a_phone_has_a_disk_of_its_own_and_this_machines_programs_read_only(
    lab: LabState, adb: Adb, phone: str, tmp_path: Path
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(5_000_000))
    assert adb.run("-s", phone, "push", str(blob), REMOTE).returncode == 0
    assert adb.shell(phone, f"sha256sum < {REMOTE}").split()[0] == sha256(blob.read_bytes()).hexdigest()
    assert adb.shell(phone, "hostname; getprop ro.serialno").split() == ["phone-0", "PHONE0"]
    assert adb.run("-s", phone, "shell", "touch /usr/mine").stderr.endswith("Read-only file system\n")
    assert not Path("/data/local").exists()


def test_states_that_only_this_daemon_can_show(lab: LabState, adb: Adb, phone: str) -> None:
    inflict(lab, "phone-0", "unauthorized")
    adb.wait_for(phone, "unauthorized")
    refused = adb.run("-s", phone, "shell", "true")
    assert refused.returncode == 1 and "device unauthorized" in refused.stderr
    inflict(lab, "phone-0", "allow")
    adb.wait_for(phone, "device")
    inflict(lab, "phone-0", "offline")
    adb.wait_for(phone, "offline")
    inflict(lab, "phone-0", "restore")
    adb.connect(phone)
    assert adb.shell(phone, "echo well") == "well\n"


@pytest.mark.parametrize(
    ("fault", "said"), [("full", "No space left on device"), ("readonly", "Read-only file system")]
)
def test_a_push_is_told_what_the_disk_has(
    lab: LabState, adb: Adb, phone: str, tmp_path: Path, fault: str, said: str
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(1_000_000))
    inflict(lab, "phone-0", fault)
    done = adb.run("-s", phone, "push", str(blob), f"{REMOTE}-new")  # an old one would give its room back first
    assert done.returncode == 1 and said in done.stdout + done.stderr


def test_a_cut_link_leaves_a_part_of_a_file(lab: LabState, adb: Adb, phone: str, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(20_000_000))
    inflict(lab, "phone-0", "cut-after", 4_000_000)
    assert adb.run("-s", phone, "push", str(blob), REMOTE).returncode == 1
    adb.connect(phone)
    assert 0 < int(adb.shell(phone, f"stat -c %s {REMOTE}")) < 20_000_000


def test_refused_is_an_exit_status_of_0(lab: LabState, adb: Adb, phone: str) -> None:
    adb.run("disconnect", phone)
    inflict(lab, "phone-0", "refuse")
    done = adb.run("connect", phone)
    assert done.returncode == 0 and "failed to connect" in done.stdout + done.stderr


def test_a_reboot_loses_the_disk(lab: LabState, adb: Adb, phone: str) -> None:
    adb.shell(phone, f"echo mine > {REMOTE}")
    inflict(lab, "phone-0", "reboot", 0.1)
    adb.connect(phone)
    assert adb.run("-s", phone, "shell", f"cat {REMOTE}").returncode == 1


def test_faults_of_other_devices_are_refused(lab: LabState) -> None:
    for device, fault in (("phone-0", "hostkey"), ("pi-0", "unauthorized"), ("phone-0", "heat")):
        with pytest.raises(UsageError) as caught:
            inflict(lab, device, fault, 40.0 if fault == "heat" else None)
        assert caught.value.hint


def test_nothing_is_left_of_phones() -> None:
    require_lab("adbd")
    before, name = surroundings(), f"test-{secrets.token_hex(4)}"
    with running(Wanted(counts={"adbd": 3}), name):
        made = lab_namespaces(name)
        assert surroundings() == before
        down(name)
        assert remains(name, made) == []
        assert surroundings() == before
