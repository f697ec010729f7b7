"""What the agent observes and sets while it measures, on folders that look like the kernel's."""

import json
import os
import time
from pathlib import Path

import pytest

from targets.agent.edge.facts import clusters
from targets.agent.edge.governor import RECORD, governed, restore
from targets.agent.edge.sampling import duty_cycled
from targets.agent.edge.watching import Watch, busy_s, clocks
from targets.agent.edge.wire import Refused


@pytest.fixture
def cpufreq(tmp_path: Path) -> Path:
    for number, cores, khz in ((0, "0 1 2 3", 1_800_000), (4, "4 5 6 7", 2_400_000)):
        policy = tmp_path / "cpufreq" / f"policy{number}"
        policy.mkdir(parents=True)
        (policy / "related_cpus").write_text(f"{cores}\n")
        (policy / "scaling_governor").write_text("ondemand\n")
        (policy / "scaling_cur_freq").write_text(f"{khz}\n")
    return tmp_path / "cpufreq"


def governors(cpufreq: Path) -> set[str]:
    return {path.read_text().strip() for path in cpufreq.glob("policy*/scaling_governor")}


def test_a_governor_is_set_back_also_after_an_error(cpufreq: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), governed(tmp_path, "performance", str(cpufreq)):
        assert governors(cpufreq) == {"performance"}
        raise ZeroDivisionError
    assert governors(cpufreq) == {"ondemand"}
    assert not (tmp_path / RECORD).exists()
    assert not restore(tmp_path)


def test_a_governor_is_set_back_after_a_crash_by_whoever_comes_next(cpufreq: Path, tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with governed(tmp_path, "performance", str(cpufreq)):
            os._exit(1)  # as a SIGKILL leaves it: no `finally` runs
    os.waitpid(child, 0)
    assert governors(cpufreq) == {"performance"}
    assert restore(tmp_path)
    assert governors(cpufreq) == {"ondemand"}
    assert not (tmp_path / RECORD).exists()


def test_a_note_that_names_another_file_changes_nothing(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / RECORD).write_text(json.dumps({str(precious): "overwritten"}))
    restore(tmp_path)
    assert precious.read_text() == "mine"


def test_a_governor_that_cannot_be_set_is_refused_and_nothing_stays(cpufreq: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no governor to set"), governed(tmp_path, "performance", str(tmp_path / "none")):
        pass
    broken = cpufreq / "policy4" / "scaling_governor"
    broken.unlink()
    broken.symlink_to("/proc/version")
    with pytest.raises(Refused, match="only root may"), governed(tmp_path, "performance", str(cpufreq)):
        pass
    assert (cpufreq / "policy0" / "scaling_governor").read_text().strip() == "ondemand"


def test_clusters_and_clocks_are_read(cpufreq: Path) -> None:
    assert clusters(str(cpufreq)) == "0-3 4-7"
    assert clocks(str(cpufreq.parent)) == [2_400_000]
    assert clusters("/nowhere") == "" and clocks("/nowhere") == []


def test_other_work_is_told_from_our_own() -> None:
    assert busy_s("cpu  100 0 50 9999 7 1 2 3 0 0\ncpu0 1") == pytest.approx(156 / os.sysconf("SC_CLK_TCK"))
    assert busy_s("") == busy_s("intr 1 2 3") == 0.0
    watch = Watch()
    watch.begin()
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    alone = float(watch.end()["other_cpu_share"])
    watch.begin()
    child = os.fork()
    if child == 0:
        while True:
            pass
    time.sleep(0.5)
    beside = float(watch.end()["other_cpu_share"])  # our child, but it has not ended: it is not what was measured
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert beside > 0.3
    assert beside > alone - 0.5
    assert abs(float(watch.end()["clock_step_ms"])) < 20


def test_a_pause_is_kept_before_every_run() -> None:
    begun = time.monotonic()
    assert duty_cycled(lambda: 7, 0.05, 10, 3, 4) == [7, 7, 7, 7]
    assert time.monotonic() - begun >= 0.2
