"""Each fault of the device lab, and what the project's own transport says of it."""

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from labs import reconnected, require_lab, running
from tiny_models import digest_of

from targets.device import Device, connect
from targets.errors import (
    AgentFailed,
    AuthRefused,
    ConnectionLost,
    DeviceError,
    DiskFull,
    HostKeyRejected,
    ReadOnly,
    Unreachable,
    UsageError,
)
from targets.lab.faults import FAULTS, inflict
from targets.lab.lab import Wanted, command_inside
from targets.lab.state import LabState, load_lab
from targets.records import TargetSpec


@pytest.fixture(scope="module")
def started() -> Iterator[str]:
    require_lab("ssh")
    with running(Wanted(counts={"ssh": 2}, disk_bytes=64_000_000), f"test-{secrets.token_hex(4)}") as lab:
        yield lab.name


@pytest.fixture
def lab(started: str) -> Iterator[LabState]:
    """Two healthy hosts; what a test breaks on the first is mended after it."""
    yield load_lab(started)
    inflict(load_lab(started), "pi-0", "restore")


@pytest.fixture
def spec(lab: LabState) -> TargetSpec:
    return replace(lab.target_specs()[0], connect_timeout_s=2.0, step_timeout_s=30.0)


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(20_000_000))
    return path


def inside(lab: LabState, *command: str) -> str:
    return subprocess.run(command_inside(lab, "pi-0", command), check=True, capture_output=True, text=True).stdout


def refusal(spec: TargetSpec, kind: type[DeviceError], tmp_path: Path) -> float:
    """How long it took to be refused in exactly this way, in s."""
    start = time.monotonic()
    with pytest.raises(kind) as caught:
        connect(spec, state=tmp_path).close()
    assert type(caught.value) is kind
    return time.monotonic() - start


def lost(spec: TargetSpec, blob: Path, tmp_path: Path) -> float:
    """How long a push took until it was known to be lost, in s."""
    with connect(spec, state=tmp_path) as device:
        start = time.monotonic()
        with pytest.raises(ConnectionLost):
            device.push(blob, digest_of(blob))
        return time.monotonic() - start


def pushed(spec: TargetSpec, blob: Path, tmp_path: Path) -> float:
    """How long a push took, in s."""
    with connect(spec, state=tmp_path) as device:
        start = time.monotonic()
        assert device.push(blob, digest_of(blob))
        return time.monotonic() - start


def live_names(lab: LabState) -> str:
    return inside(lab, "sh", "-c", "ls /home/pi/.edge-deploy/blobs/sha256")


def test_cut_after_so_many_bytes_resets_in_the_middle_of_a_push(
    lab: LabState, spec: TargetSpec, blob: Path, tmp_path: Path
) -> None:
    with connect(spec, state=tmp_path):
        pass  # brings the agent there
    inflict(lab, "pi-0", "cut-after", 4_000_000)
    assert lost(spec, blob, tmp_path) < 30
    assert digest_of(blob) not in live_names(lab)
    assert pushed(spec, blob, tmp_path) < 60  # the trigger has gone off; nothing needs mending


def test_blackhole_after_so_many_bytes_is_noticed_in_the_middle_of_a_push(
    lab: LabState, spec: TargetSpec, blob: Path, tmp_path: Path
) -> None:
    inflict(lab, "pi-0", "blackhole-after", 6_000_000)
    assert lost(spec, blob, tmp_path) < 40  # resending backs off between looks at the clock
    assert 1.9 < refusal(spec, Unreachable, tmp_path) < 20  # and nobody answers a new connection
    inflict(lab, "pi-0", "restore")
    assert "pi-0" in inside(lab, "hostname")
    with reconnected(spec, tmp_path) as device:
        assert device.facts().target == "pi-0"


def test_blackhole_between_requests_is_noticed_by_keep_alive(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    """Nothing is under way: a forwarder that kept acknowledging would hide this."""
    with connect(spec, state=tmp_path) as device:
        inflict(lab, "pi-0", "blackhole")
        start = time.monotonic()
        with pytest.raises(ConnectionLost):
            device.facts()
    assert time.monotonic() - start < 30


def test_blackhole_gives_no_answer_to_a_new_connection(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    inflict(lab, "pi-0", "blackhole")
    assert 1.9 < refusal(spec, Unreachable, tmp_path) < 20


def test_refuse_is_known_at_once_and_the_port_stays_ours(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    inflict(lab, "pi-0", "refuse")
    assert refusal(spec, Unreachable, tmp_path) < 1.9
    inflict(lab, "pi-0", "restore")
    with reconnected(spec, tmp_path) as device:
        assert device.facts().target == "pi-0"


def test_hang_accepts_and_never_speaks(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    inflict(lab, "pi-0", "hang")
    assert 1.9 < refusal(spec, Unreachable, tmp_path) < 20


def test_cut_ends_a_session(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    with connect(spec, state=tmp_path) as device:
        device.facts()
        inflict(lab, "pi-0", "cut")
        with pytest.raises(ConnectionLost):
            device.facts()


def test_full_disk(lab: LabState, spec: TargetSpec, blob: Path, tmp_path: Path) -> None:
    with connect(spec, state=tmp_path) as device:
        inflict(lab, "pi-0", "full")
        assert device.facts().free_disk_bytes < 100_000
        with pytest.raises(DiskFull):
            device.push(blob, digest_of(blob))
    inflict(lab, "pi-0", "restore")
    blob.write_bytes(os.urandom(1_000_000))
    pushed(spec, blob, tmp_path)


def test_read_only_disk(lab: LabState, spec: TargetSpec, blob: Path, tmp_path: Path) -> None:
    inflict(lab, "pi-0", "readonly")
    with pytest.raises(ReadOnly), connect(spec, state=tmp_path) as device:
        device.push(blob, digest_of(blob))


def test_no_key_is_accepted(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    inflict(lab, "pi-0", "auth")
    refusal(spec, AuthRefused, tmp_path)


def test_a_new_host_key_is_refused_until_restored(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    inflict(lab, "pi-0", "hostkey")
    with pytest.raises(HostKeyRejected):
        reconnected(spec, tmp_path)  # sshd starts itself again
    inflict(lab, "pi-0", "restore")
    with reconnected(spec, tmp_path) as device:
        assert device.facts().target == "pi-0"


def test_reboot_in_the_middle_of_a_push_loses_the_disk_and_comes_back(
    lab: LabState, spec: TargetSpec, blob: Path, tmp_path: Path
) -> None:
    inside(lab, "touch", "/home/pi/mine")
    reboot = threading.Thread(target=inflict, args=(lab, "pi-0", "reboot", 1.0))
    with connect(spec, state=tmp_path) as device:
        inflict(lab, "pi-0", "rate", 4_000_000)
        threading.Timer(1.0, reboot.start).start()
        with pytest.raises(ConnectionLost):
            device.push(blob, digest_of(blob))
    while not reboot.ident:
        time.sleep(0.05)
    reboot.join()
    inflict(load_lab(lab.name), "pi-0", "restore")
    with reconnected(spec, tmp_path) as device:
        assert device.facts().target == "pi-0"
    assert "mine" not in inside(load_lab(lab.name), "ls", "/home/pi")


def test_rate_and_delay_are_about_what_was_asked_for(
    lab: LabState, spec: TargetSpec, blob: Path, tmp_path: Path
) -> None:
    blob.write_bytes(os.urandom(3_000_000))
    with connect(spec, state=tmp_path) as device:
        inflict(lab, "pi-0", "rate", 1_000_000)
        start = time.monotonic()
        device.push(blob, digest_of(blob))
        assert 2.5 < time.monotonic() - start < 30
        inflict(lab, "pi-0", "restore")
        inflict(lab, "pi-0", "delay", 0.1)
        start = time.monotonic()
        device.facts()
        assert 0.2 <= time.monotonic() - start < 10


def test_jitter_delays_and_keeps_the_order(lab: LabState, spec: TargetSpec, blob: Path, tmp_path: Path) -> None:
    blob.write_bytes(os.urandom(2_000_000))
    with connect(spec, state=tmp_path) as device:
        plain = min(asked(device) for _ in range(3))
        inflict(lab, "pi-0", "jitter", 0.1)
        times = [asked(device) for _ in range(8)]
        assert max(times) > plain + 0.03 and max(times) - min(times) > 0.01
        assert device.push(blob, digest_of(blob))  # which checks the content


def asked(device: Device) -> float:
    start = time.monotonic()
    device.facts()
    return time.monotonic() - start


def test_lost_packets_are_sent_again_by_tcp_and_nothing_else_happens(
    lab: LabState, spec: TargetSpec, blob: Path, tmp_path: Path
) -> None:
    inflict(lab, "pi-0", "loss", 0.05)
    before = retransmitted()
    pushed(spec, blob, tmp_path)
    assert retransmitted() > before + 3  # 20 MB are hundreds of packets, also with the large ones of loopback
    assert digest_of(blob) in live_names(lab)


def retransmitted() -> int:
    """TCP segments that this machine has sent again."""
    names, values = (row.split() for row in Path("/proc/net/snmp").read_text().splitlines() if row.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


def test_a_cable_put_back_in_time_costs_a_pause_and_no_push(
    lab: LabState, spec: TargetSpec, blob: Path, tmp_path: Path
) -> None:
    with connect(replace(spec, connect_timeout_s=10.0), state=tmp_path) as device:
        inflict(lab, "pi-0", "blackhole-after", 6_000_000)
        threading.Timer(2.0, inflict, (lab, "pi-0", "restore")).start()
        start = time.monotonic()
        assert device.push(blob, digest_of(blob))
        assert time.monotonic() - start > 1.5


def test_a_clock_that_is_off_is_off_in_new_sessions_only(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    inflict(lab, "pi-0", "clock", -3 * 86400.0)
    with reconnected(spec, tmp_path) as device:  # sshd starts itself again
        assert device.facts().target == "pi-0"
        subprocess.run(ssh(spec, f"{spec.python} -c 'import time; time.sleep(0.01)'"), check=True)
        assert -3.1 < (ssh_clock(spec) - time.time()) / 86400 < -2.9
        blob = tmp_path / "blob"
        blob.write_bytes(b"x" * 1000)
        assert device.push(blob, digest_of(blob))  # nothing of ours compares clocks
    inflict(lab, "pi-0", "restore")
    with reconnected(spec, tmp_path):
        assert abs(ssh_clock(spec) - time.time()) < 60


def ssh_clock(spec: TargetSpec) -> float:
    """The time of day in a session of its own, in s since 1970."""
    return float(subprocess.run(ssh(spec, "date +%s"), check=True, capture_output=True, text=True).stdout)


def ssh(spec: TargetSpec, command: str) -> list[str]:
    options = [f"-oUserKnownHostsFile={spec.known_hosts}", f"-p{spec.port}", f"-i{spec.identity_file}"]
    return ["ssh", "-F", "none", *options, f"{spec.user}@{spec.host}", command]


def test_kill_ends_what_runs_and_leaves_the_device_alone(lab: LabState, spec: TargetSpec, tmp_path: Path) -> None:
    with connect(spec, state=tmp_path) as device:
        device.facts()
        inflict(lab, "pi-0", "kill")
        with pytest.raises(AgentFailed):  # killed, not cut: the link lives on, and a status of -1 says so
            device.facts()
    with connect(spec, state=tmp_path) as device:
        assert device.facts().target == "pi-0"


def test_faults_hit_one_device_only(lab: LabState, tmp_path: Path) -> None:
    inflict(lab, "pi-0", "blackhole")
    with connect(lab.target_specs()[1], state=tmp_path) as device:
        assert device.facts().target == "pi-1"


def test_the_command_line(lab: LabState) -> None:
    def deploy(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "pipeline.cli.main", "lab", *words, "--name", lab.name]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    listed = deploy("fault").stdout
    assert all(f"{fault}" in listed for fault in FAULTS)
    assert deploy("fault", "pi-0", "cut-after=4MB").returncode == 0
    assert "cut-after=4.00MB" in deploy("status").stdout
    assert deploy("fault", "pi-0", "full").stdout == "pi-0: full\n"
    assert "cut-after=4.00MB, full" in deploy("status").stdout
    assert deploy("fault", "all", "restore").returncode == 0
    assert "full" not in deploy("status").stdout
    assert "cut-after" not in deploy("status").stdout
    for wrong in (["pi-9", "cut"], ["pi-0", "burn"], ["pi-0", "cut=3"], ["pi-0", "rate"], ["pi-0"]):
        refused = deploy("fault", *wrong)
        assert refused.returncode == 2 and "hint:" in refused.stderr


def test_a_missing_or_superfluous_value_is_refused(lab: LabState) -> None:
    with pytest.raises(UsageError):
        inflict(lab, "pi-0", "rate")
    with pytest.raises(UsageError):
        inflict(lab, "pi-0", "cut", 3)
