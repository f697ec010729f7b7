"""Android devices of the device lab, as the genuine adb client sees them: what they are, and each fault."""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from adb_client import Adb, adb_server
from labs import all_namespaces, lab_namespaces, remains, require_lab, running, surroundings

from targets.errors import UsageError
from targets.lab.emulation import ensure_emulation
from targets.lab.faults import FAULTS, inflict
from targets.lab.lab import Wanted, command_inside, down
from targets.lab.profiles import profiles
from targets.lab.state import LOOPBACK, LabState, load_lab
from targets.lab.tree import ensure_tree
from targets.lab.trees import ANDROID

_DISK_BYTES = 64_000_000
_BLOB_BYTES = 20_000_000
_BLOB = "/data/local/tmp/blob"


@pytest.fixture(scope="module")
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Adb]:
    with adb_server(tmp_path_factory.mktemp("adb")) as client:
        yield client


@pytest.fixture(scope="module")
def started() -> Iterator[str]:
    require_lab("android")
    wanted = Wanted(counts={"android": 2}, profiles=("pixel-7", "galaxy-a15"), disk_bytes=_DISK_BYTES)
    with running(wanted, f"test-{secrets.token_hex(4)}") as lab:
        yield lab.name


@pytest.fixture
def lab(started: str) -> Iterator[LabState]:
    """Two healthy devices; what a test breaks on the first is mended after it."""
    yield load_lab(started)
    inflict(load_lab(started), "pixel-7-0", "restore")


@pytest.fixture
def phone(lab: LabState, adb: Adb) -> str:
    """The first device, connected, by what adb calls its serial number."""
    adb.connect(serial(lab, "pixel-7-0"))
    adb.shell(serial(lab, "pixel-7-0"), f"rm -f {_BLOB}")
    return serial(lab, "pixel-7-0")


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(os.urandom(_BLOB_BYTES))
    return path


def serial(lab: LabState, name: str) -> str:
    return f"{LOOPBACK}:{lab.device(name).port}"


def inside(lab: LabState, *command: str) -> str:
    argv = command_inside(lab, "pixel-7-0", command)
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def deploy(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "pipeline.cli.main", "lab", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "parts", "capacities", "together"),
    [
        ("pixel-7-0", ["0xd05"] * 4 + ["0xd41"] * 2 + ["0xd44"] * 2, [124] * 4 + [427] * 2 + [1024] * 2, "4 5"),
        ("galaxy-a15-1", ["0xd05"] * 6 + ["0xd0b"] * 2, [401] * 6 + [1024] * 2, "0 1 2 3 4 5"),
    ],
)
def test_each_device_is_what_it_claims(
    lab: LabState, adb: Adb, name: str, parts: list[str], capacities: list[int], together: str
) -> None:
    device, board = serial(lab, name), profiles()[name[:-2]]
    adb.connect(device)
    assert adb.shell(device, "getprop ro.product.model").strip() == board["model"]
    assert adb.shell(device, "getprop ro.soc.model").strip() == board["properties"]["ro.soc.model"]
    assert adb.shell(device, "uname -m -r -n").split() == [name, board["kernel"], "aarch64"]
    cpuinfo = adb.shell(device, "cat /proc/cpuinfo")
    assert [line.split()[-1] for line in cpuinfo.splitlines() if line.startswith("CPU part")] == parts
    cores = "/sys/devices/system/cpu/cpu"
    assert [int(word) for word in adb.shell(device, f"cat {cores}[0-9]*/cpu_capacity").split()] == capacities
    assert adb.shell(device, f"cat {cores}4/cpufreq/related_cpus").strip() == together
    fastest = [int(word) for word in adb.shell(device, f"cat {cores}[07]/cpufreq/cpuinfo_max_freq").split()]
    assert fastest == [board["clusters"][index]["frequencies_khz"][-1] for index in (0, -1)]
    battery = next(sensor for sensor in board["sensors"] if sensor["kind"] == "battery")
    told = dict(line.strip().split(": ") for line in adb.shell(device, "dumpsys battery").splitlines()[1:])
    charge = battery.get("charge", 0.81)
    assert 100 * charge - 2 < int(told["level"]) <= 100 * charge  # it runs down as the device really works
    assert (told["status"], told["USB powered"]) == ("3", "false")


def test_exit_code_and_errors_come_back_apart(adb: Adb, phone: str) -> None:
    done = adb.run("-s", phone, "shell", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_a_file_comes_back_as_it_went(adb: Adb, phone: str, blob: Path, tmp_path: Path) -> None:
    assert adb.run("-s", phone, "push", str(blob), _BLOB).returncode == 0
    assert adb.run("-s", phone, "pull", _BLOB, str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == blob.read_bytes()


def test_properties_are_set_until_the_next_start_and_some_never(adb: Adb, phone: str) -> None:
    adb.shell(phone, "setprop debug.mine 'a=b c'; setprop debug.mine 'd=e f'")
    assert adb.shell(phone, "getprop debug.mine") == "d=e f\n"
    everything = adb.shell(phone, "getprop")
    assert everything.count("[debug.mine]: [d=e f]\n") == 1 and "[ro.build.version.sdk]: [34]\n" in everything
    assert adb.shell(phone, "getprop debug.none 7") == "7\n"
    refused = adb.run("-s", phone, "shell", "setprop ro.product.model other")
    assert refused.returncode == 1 and "Failed to set property" in refused.stderr


def test_commands_are_there_and_what_ends_alone_leaves_no_zombie(lab: LabState, adb: Adb, phone: str) -> None:
    known = {*adb.shell(phone, "toybox").split(), "adbd", "dumpsys", "getprop", "setprop", "sh", "toybox"}
    assert set(adb.shell(phone, "ls /system/bin").split()) <= known
    refused = adb.run("-s", phone, "shell", "touch /system/mine")
    assert refused.returncode == 1 and "Read-only file system" in refused.stderr
    pid = adb.shell(phone, "sleep 0.1 >/dev/null 2>&1 & echo $!").strip()
    end = time.monotonic() + 10
    while Path(f"/proc/{lab.processes['pixel-7-0'].pid}/root/proc/{pid}").exists():
        assert time.monotonic() < end, inside(lab, "ps", "-A", "-o", "PID,PPID,STAT,CMD")
        time.sleep(0.05)


def test_cut_in_the_middle_of_a_push_takes_the_old_file_along(lab: LabState, adb: Adb, phone: str, blob: Path) -> None:
    """adbd writes at the final name and clears it away when the connection breaks: what was there before is gone."""
    adb.shell(phone, f"echo old > {_BLOB}")
    inflict(lab, "pixel-7-0", "cut-after", 5_000_000)
    done = adb.run("-s", phone, "push", str(blob), _BLOB)
    assert done.returncode == 1 and "couldn't read from device" in done.stdout + done.stderr
    assert inside(lab, "ls", "-A", "/data/local/tmp") == ""
    adb.connect(phone)
    assert adb.run("-s", phone, "push", str(blob), _BLOB).returncode == 0


def test_blackhole_in_the_middle_of_a_push_leaves_a_part_where_the_whole_should_be(
    lab: LabState, adb: Adb, phone: str, blob: Path
) -> None:
    inflict(lab, "pixel-7-0", "blackhole-after", 5_000_000)
    with adb.start("-s", phone, "push", str(blob), _BLOB) as pushing:
        with pytest.raises(subprocess.TimeoutExpired):
            pushing.communicate(timeout=2)
        assert 1_000_000 < int(inside(lab, "stat", "-c", "%s", _BLOB)) <= 5_000_000
        inflict(lab, "pixel-7-0", "restore")
        pushing.communicate(timeout=30)
    assert pushing.returncode == 0
    assert int(inside(lab, "stat", "-c", "%s", _BLOB)) == _BLOB_BYTES


@pytest.mark.parametrize("fault", ["blackhole", "hang"])
def test_silence_is_not_noticed_and_ends_where_it_began(lab: LabState, adb: Adb, phone: str, fault: str) -> None:
    """adb itself knows no time limit: whoever uses it needs one."""
    inflict(lab, "pixel-7-0", fault)
    with adb.start("-s", phone, "shell", "echo back") as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.communicate(timeout=2)
        inflict(lab, "pixel-7-0", "restore")
        assert waiting.communicate(timeout=30)[0] == "back\n"
    assert waiting.returncode == 0


def test_full_disk(lab: LabState, adb: Adb, phone: str, blob: Path) -> None:
    inflict(lab, "pixel-7-0", "full")
    done = adb.run("-s", phone, "push", str(blob), _BLOB)
    assert done.returncode == 1 and "No space left on device" in done.stdout + done.stderr
    adb.shell(phone, "setprop debug.full yes")  # properties need no disk
    inflict(lab, "pixel-7-0", "restore")
    assert adb.run("-s", phone, "push", str(blob), _BLOB).returncode == 0


def test_read_only_disk(lab: LabState, adb: Adb, phone: str, blob: Path) -> None:
    inflict(lab, "pixel-7-0", "readonly")
    done = adb.run("-s", phone, "push", str(blob), _BLOB)
    assert done.returncode == 1 and "Read-only file system" in done.stdout + done.stderr
    inflict(lab, "pixel-7-0", "restore")
    assert adb.run("-s", phone, "push", str(blob), _BLOB).returncode == 0


def test_killed_programs_say_so(lab: LabState, adb: Adb, phone: str) -> None:
    with adb.start("-s", phone, "shell", "echo up; exec sleep 60") as program:
        assert program.stdout and program.stdout.readline() == "up\n"
        inflict(lab, "pixel-7-0", "kill")
        program.communicate(timeout=10)
    assert program.returncode == 128 + signal.SIGKILL
    assert adb.shell(phone, "echo alive") == "alive\n"


def test_refused_connections_are_told_in_words_only(lab: LabState, adb: Adb, phone: str) -> None:
    adb.run("disconnect", phone)
    inflict(lab, "pixel-7-0", "refuse")
    done = adb.run("connect", phone)
    assert done.returncode == 0 and "Connection refused" in done.stdout
    assert adb.run("-s", phone, "get-state").returncode == 1
    inflict(lab, "pixel-7-0", "restore")
    adb.connect(phone)


def test_reboot_loses_the_disk_and_comes_back(lab: LabState, adb: Adb, phone: str) -> None:
    adb.shell(phone, "touch /data/local/tmp/mine; setprop debug.mine 1")
    reboot = threading.Thread(target=inflict, args=(lab, "pixel-7-0", "reboot", 0.5))
    with adb.start("-s", phone, "shell", "sleep 60") as session:
        reboot.start()
        session.communicate(timeout=20)
    assert session.returncode != 0
    reboot.join()
    adb.connect(phone)
    assert "mine" not in adb.shell(phone, "ls /data/local/tmp; getprop debug.mine")


def test_faults_of_ssh_are_refused(lab: LabState) -> None:
    for fault in ("auth", "hostkey", "clock"):
        with pytest.raises(UsageError, match="for devices with ssh"):
            inflict(lab, "pixel-7-0", fault, 60 if FAULTS[fault].dimension else None)


def test_the_command_line_from_up_to_down() -> None:
    require_lab("android")
    name = f"test-{secrets.token_hex(4)}"
    started = deploy("up", "--android", "1", "--name", name)
    try:
        assert started.returncode == 0, started.stderr
        lab = load_lab(name)
        assert f"    host: {LOOPBACK}\n    port: {lab.device('pixel-7-0').port}\n" in started.stdout
        assert serial(lab, "pixel-7-0") in deploy("status", "--name", name).stdout
        done = deploy("exec", "--name", name, "pixel-7-0", "--", "sh", "-c", "getprop ro.product.model; exit 7")
        assert (done.returncode, done.stdout) == (7, "Pixel 7\n")
        refused = deploy("fault", "--name", name, "pixel-7-0", "auth")
        assert refused.returncode == 2 and "pixel-7-0 can have cut, " in refused.stderr
    finally:
        assert deploy("down", "--name", name).returncode == 0


@pytest.mark.parametrize("crashed", [False, True], ids=["down", "keeper killed"])
def test_nothing_is_left(crashed: bool) -> None:
    require_lab("android")
    ensure_emulation("aarch64")
    ensure_tree(ANDROID)
    before, name = surroundings(), f"test-{secrets.token_hex(4)}"
    with running(Wanted(counts={"android": 2}), name) as lab:
        made = lab_namespaces(name)
        assert surroundings() == before
        if crashed:
            lab.keeper.signal(signal.SIGKILL)
            end = time.monotonic() + 5
            while made & all_namespaces():  # without any help
                assert time.monotonic() < end
                time.sleep(0.02)
        down(name)
        assert remains(name, made) == []
        assert surroundings() == before
