"""What `deploy lab doctor` says of a machine that lacks something, and what boards look like as text."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from targets.agent.edge.facts import parse_cpuinfo
from targets.errors import UsageError
from targets.lab.doctor import Finding, apt_line
from targets.lab.identity import new_key
from targets.lab.profiles import cores_of, cpuinfo, profile, profiles, write_sys
from targets.lab.state import ProcessId, lab_folder


def test_one_line_installs_everything_that_is_missing(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pipeline.cli.main", "lab", "doctor"]
    done = subprocess.run(argv, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "SSH hosts" in done.stdout and "ARM64 boards" in done.stdout
    assert "nsenter" in done.stdout and "mmdebstrap" in done.stdout
    hints = [line for line in done.stderr.splitlines() if "hint" in line]
    assert len(hints) == 1
    assert "apt-get install" in hints[0] and "util-linux" in hints[0] and "mmdebstrap" in hints[0]


def test_without_root_it_refuses_and_says_so() -> None:
    """Imports first: an ordinary user may not even see the folder of this interpreter."""
    script = (
        "import os\nfrom pipeline.cli import lab, main\nfrom targets.lab import lab as _\n"
        "import pipeline.quantities\nos.geteuid() or os.seteuid(65534)\nmain.main()"
    )
    argv = [sys.executable, "-c", script, "lab", "up", "--ssh", "1", "--name", "test-refused"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "missing root" in done.stderr and "sudo" in done.stderr
    assert not lab_folder("test-refused").exists()


def test_packages_are_named_once_and_what_no_package_brings_not_at_all() -> None:
    found = [Finding(kind="ssh", missing=name, package="iproute2") for name in ("ip", "tc")]
    assert apt_line(found) == "sudo apt-get install --no-install-recommends iproute2"
    assert apt_line([Finding(kind="ssh", missing="root")]) == ""


@pytest.mark.parametrize("name", profiles())
def test_our_own_agent_reads_each_board_as_the_board(name: str, tmp_path: Path) -> None:
    board = profile(name)
    cores = cores_of(board)
    read = parse_cpuinfo(cpuinfo(board))
    assert read["count"] == len(cores)
    assert "Cortex-" in read["model"] and "ARM part" not in read["model"]
    write_sys(board, tmp_path)
    cpu = tmp_path / "devices/system/cpu"
    assert (cpu / "possible").read_text() == f"0-{len(cores) - 1}\n"
    for index, core in enumerate(cores):
        identification = cpu / f"cpu{index}/regs/identification/midr_el1"
        if core.get("architecture", 8) != 8:
            assert not identification.exists()  # 32-bit kernels do not show it
            continue
        midr = int(identification.read_text(), 16)
        assert midr >> 4 & 0xFFF == core["part"] and midr >> 24 == 0x41
    assert (tmp_path / "firmware/devicetree/base/model").read_text() == board["model"] + "\0"


def test_an_unknown_board_names_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        profile("rpi9")
    assert "rpi4" in caught.value.hint


def test_a_process_is_known_by_its_start_and_not_by_its_number_alone() -> None:
    ours = ProcessId.of(os.getpid())
    assert ours.alive()
    assert not ProcessId(pid=ours.pid, started=ours.started - 1).alive()
    ProcessId(pid=ours.pid, started=ours.started - 1).signal(9)  # would end these tests
    with pytest.raises(ProcessLookupError):
        ProcessId.of(2**22 + 1)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    new_key(tmp_path / "key", "lab")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        new_key(tmp_path / "key", "lab")


def test_a_lab_cannot_be_named_out_of_its_folder() -> None:
    with pytest.raises(UsageError):
        lab_folder("..")
