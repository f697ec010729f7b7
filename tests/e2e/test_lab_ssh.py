"""SSH hosts of the device lab: the project's own transport against them, and that nothing is left afterwards."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from labs import all_namespaces, lab_namespaces, remains, require_lab, running, surroundings
from ruamel.yaml import YAML
from tiny_models import digest_of, onnx_bundle, tflite_bundle

from targets.device import connect
from targets.errors import DiskFull, EnvironmentFault, HostKeyRejected, UsageError
from targets.lab.lab import Wanted, command_inside, down, up
from targets.lab.state import LabState, lab_folder, load_lab

pytestmark = pytest.mark.usefixtures("capable")
_DISK_BYTES = 32_000_000


@pytest.fixture(scope="module")
def capable() -> None:
    require_lab("ssh")


@pytest.fixture
def name() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture(scope="module")
def lab(capable: None) -> Iterator[LabState]:
    with running(Wanted(counts={"ssh": 3}, disk_bytes=_DISK_BYTES), f"test-{secrets.token_hex(4)}") as lab:
        yield lab


def deploy(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pipeline.cli.main", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def inside(lab: LabState, device: str, *command: str) -> str:
    return subprocess.run(command_inside(lab, device, command), check=True, capture_output=True, text=True).stdout


def test_the_projects_transport_finds_hosts_with_runtimes_and_a_disk_of_the_size_asked_for(
    lab: LabState, tmp_path: Path
) -> None:
    for spec in lab.target_specs():
        with connect(spec, state=tmp_path) as device:
            facts = device.facts()
        assert facts.target == spec.name
        assert {"ai-edge-litert", "onnxruntime"} <= set(facts.runtimes)
        assert 0.9 * _DISK_BYTES < facts.free_disk_bytes <= _DISK_BYTES


@pytest.mark.parametrize("make", [tflite_bundle, onnx_bundle])
def test_a_model_is_pushed_and_answers_as_on_the_host(lab: LabState, tmp_path: Path, make: type) -> None:
    bundle = make(tmp_path)
    with connect(lab.target_specs()[0], state=tmp_path) as device:
        for path in bundle.files:
            device.push(path, digest_of(path))
        measured = device.bench(bundle.request(), 60)
    assert measured.answer.max_steps == 0
    assert len(measured.warm_ns) >= 3


def test_hosts_are_apart_from_each_other_and_from_this_machine(lab: LabState) -> None:
    first, second = (device.name for device in lab.devices[:2])
    assert inside(lab, first, "hostname").strip() == first
    inside(lab, first, "touch", "/home/pi/mine", "/tmp/mine")
    assert "mine" not in inside(lab, second, "ls", "/home/pi", "/tmp")
    assert not Path("/tmp/mine").exists()
    assert inside(lab, first, "sh", "-c", "touch /etc/mine 2>&1 || true").endswith("Read-only file system\n")
    assert len(inside(lab, first, "ps", "-e", "-o", "pid=").splitlines()) < 10  # its own processes only
    assert "default" not in inside(lab, first, "ip", "route")


def test_a_full_disk_is_told_from_other_failures(lab: LabState, tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(os.urandom(2 * _DISK_BYTES))
    with connect(lab.target_specs()[1], state=tmp_path) as device, pytest.raises(DiskFull):
        device.push(source, digest_of(source))


def test_each_host_has_a_key_of_its_own(lab: LabState, tmp_path: Path) -> None:
    first, second = lab.target_specs()[:2]
    lines = Path(first.known_hosts).read_text()
    wrong = tmp_path / "known_hosts"
    wrong.write_text(lines.replace(f"]:{first.port} ", "]:1 ").replace(f"]:{second.port} ", f"]:{first.port} "))
    with pytest.raises(HostKeyRejected):
        connect(replace(first, known_hosts=str(wrong)), state=tmp_path)


def test_many_connections_at_once_are_all_served(lab: LabState, tmp_path: Path) -> None:
    spec = lab.target_specs()[0]

    def facts(_: int) -> str:
        with connect(spec, state=tmp_path) as device:
            return device.facts().target

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(facts, range(12))) == {spec.name}


def test_the_machine_is_untouched_while_a_lab_runs_and_nothing_is_left_of_it(name: str) -> None:
    before = surroundings()
    with running(Wanted(counts={"ssh": 3}), name) as lab:
        made = lab_namespaces(name)
        assert len(made) == 1 + 5 * len(lab.devices)  # the hub's network, and five of each device
        assert made <= all_namespaces()
        assert surroundings() == before
        down(name)
        assert remains(name, made) == []
        assert surroundings() == before


@pytest.mark.parametrize("whole", [False, True], ids=["keeper", "everything"])
def test_after_a_crash_nothing_is_left_either(name: str, whole: bool, tmp_path: Path) -> None:
    before = surroundings()
    with running(Wanted(counts={"ssh": 3}), name) as lab, connect(lab.target_specs()[0], state=tmp_path):
        made = lab_namespaces(name)
        for process in (lab.keeper, *(lab.processes.values() if whole else ())):
            process.signal(signal.SIGKILL)
        down(name)
        assert remains(name, made) == []
        assert surroundings() == before


def test_a_killed_keeper_takes_its_devices_along_without_any_help(name: str) -> None:
    with running(Wanted(counts={"ssh": 2}), name) as lab:
        made = lab_namespaces(name)
        lab.keeper.signal(signal.SIGKILL)
        end = time.monotonic() + 5
        while made & all_namespaces() and time.monotonic() < end:
            time.sleep(0.02)
        assert not made & all_namespaces()
        again = up(name, Wanted(counts={"ssh": 1}))  # what was left of the first is no hindrance
        assert again.keeper != lab.keeper


def test_two_labs_live_side_by_side(lab: LabState, name: str, tmp_path: Path) -> None:
    with running(Wanted(counts={"ssh": 2}), name) as other:
        assert {spec.name for spec in other.target_specs()} <= {spec.name for spec in lab.target_specs()}
        for spec in (other.target_specs()[0], lab.target_specs()[0]):
            with connect(spec, state=tmp_path) as device:
                assert device.facts().target == spec.name
        with pytest.raises(EnvironmentFault, match="is running"):
            up(name, Wanted(counts={"ssh": 1}))
        down(name)
    with connect(lab.target_specs()[0], state=tmp_path) as device:
        assert device.facts().target


def test_the_command_line_from_up_to_down(name: str) -> None:
    started = deploy("lab", "up", "--ssh", "2", "--disk", "20 MB", "--name", name)
    try:
        assert started.returncode == 0, started.stderr
        printed = YAML(typ="safe").load(started.stdout)["targets"]
        assert list(printed) == ["pi-0", "pi-1"]
        assert printed["pi-0"]["port"] == load_lab(name).devices[0].port
        shown = deploy("lab", "status", "--name", name)
        assert shown.stdout.count("running") == 2
        done = deploy("lab", "exec", "--name", name, "pi-1", "--", "sh", "-c", "hostname; exit 7")
        assert (done.returncode, done.stdout) == (7, "pi-1\n")
    finally:
        ended = deploy("lab", "down", "--name", name)
    assert ended.returncode == 0, ended.stderr
    missing = deploy("lab", "status", "--name", name)
    assert missing.returncode == 3
    assert "there is no lab" in missing.stderr


def test_names_that_cannot_be_are_refused() -> None:
    for wrong in ("", "../etc", "a/b", "A", "x" * 40):
        with pytest.raises(UsageError):
            up(wrong, Wanted(counts={"ssh": 1}))
    with pytest.raises(UsageError):
        up("test-none", Wanted(counts={}))


@pytest.mark.parametrize("after_s", [0.3, 0.6, 0.9, 1.2])
def test_a_start_killed_at_any_moment_leaves_nothing_after_down(name: str, after_s: float) -> None:
    before = surroundings()
    argv = [sys.executable, "-m", "pipeline.cli.main", "lab", "up", "--ssh", "30", "--name", name]
    starting = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    starting.kill()
    starting.wait()
    if lab_folder(name).exists():
        made = lab_namespaces(name) if (lab_folder(name) / "lab.json").exists() else set()
        down(name)
        assert remains(name, made) == []
    assert surroundings() == before
