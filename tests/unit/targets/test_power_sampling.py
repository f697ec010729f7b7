"""The device's side of a power meter: reading files at a pace of their own, and windows of inference."""

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from targets.agent.edge import power
from targets.agent.edge.power import Sampler, sensors
from targets.agent.edge.windows import Thinned, run_windows
from targets.devices.shell_power import parse_samples


def test_sensor_files_are_found_and_unreadable_ones_are_empty(tmp_path: Path) -> None:
    chip = tmp_path / "class/hwmon/hwmon3"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina226\n")
    (chip / "curr1_input").write_text("512\n")
    (chip / "temp1_input").write_text("50000\n")
    zone = tmp_path / "class/powercap/intel-rapl:0"
    (zone / "energy_uj").mkdir(parents=True)  # what cannot be read
    assert sensors(str(tmp_path)) == {f"{chip}/name": "ina226", f"{chip}/curr1_input": "512", f"{zone}/energy_uj": ""}


def test_a_sampler_reads_at_its_pace_and_once_more_at_the_end() -> None:
    file = "/sys/kernel/mm/transparent_hugepage/enabled"
    sampler = Sampler({"files": [file, "/sys/no/such"], "command": "", "interval_s": 0.01})
    sampler.start()
    time.sleep(0.3)
    ended_ns = time.monotonic_ns()
    found = sampler.stop()
    text = Path(file).read_text().strip()
    assert all(values == [text, ""] for values in found["values"])
    assert len(found["time_ns"]) == len(found["values"]) and 8 <= len(found["values"]) <= 32
    assert all(before < after for before, after in pairwise(found["time_ns"]))
    assert found["time_ns"][-2] <= ended_ns <= found["time_ns"][-1] + 10_000_000
    json.dumps(found)


@pytest.mark.parametrize(
    ("files", "command"), [(["/etc/shadow"], ""), (["/sys/../etc/shadow"], ""), ([], "sh"), ([], "vcgencmd")]
)
def test_a_host_cannot_have_anything_else_read_or_run(files: list[str], command: str) -> None:
    with pytest.raises(ValueError, match="not a sensor's"):
        Sampler({"files": files, "command": command, "interval_s": 1})


def test_a_sampler_never_fills_a_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "MAX_TEXT_BYTES", 1000)
    sampler = Sampler({"files": ["/sys/kernel/mm/transparent_hugepage/enabled"], "command": "", "interval_s": 0.001})
    sampler.start()
    time.sleep(0.2)
    assert len(json.dumps(sampler.stop())) < 2000


def test_windows_alternate_and_count_whole_runs() -> None:
    plan = {"windows": 2, "window_s": 0.05, "idle_s": 0.02, "settle_s": 0.01}

    def timed() -> int:
        time.sleep(0.002)
        return 2_000_000

    windows, latencies = run_windows(timed, plan, 10)
    assert [window["kind"] for window in windows] == ["idle", "busy", "idle", "busy", "idle"]
    assert all(before["end_ns"] + 20_000_000 <= after["start_ns"] for before, after in pairwise(windows))
    for window in windows:
        long_s = (window["end_ns"] - window["start_ns"]) * 1e-9
        least_s = 0.05 if window["kind"] == "busy" else 0.02
        assert long_s >= least_s
        assert (window["runs"] > 0) == (window["kind"] == "busy")
        assert window["runs"] * 0.002 <= long_s
    assert 2 <= len(latencies) <= 10 and set(latencies) == {2_000_000}


def test_thinned_samples_are_spread_over_all() -> None:
    thinned = Thinned(100)
    for number in range(12_345):
        thinned.add(number)
    gaps = {after - before for before, after in pairwise(thinned.kept)}
    assert len(gaps) == 1 and 50 <= len(thinned.kept) <= 100
    assert thinned.kept[0] == 0 and thinned.kept[-1] > 12_000


def test_a_sample_of_a_shell_that_was_ended_in_the_middle_is_left_out() -> None:
    text = "@ 12.05\n# /a\n-500\n# /b\nt=1\nCH0\n@ 12.30\n# /a\n-510\n"
    assert parse_samples(text, ["/a", "/b"]) == {"time_ns": [12_050_000_000], "values": [["-500", "t=1\nCH0"]]}
    command = "@ 12.05 12.25\n# command\n[S2M]:CPU  1.00 mWs\n"
    assert parse_samples(command, ["command"]) == {"time_ns": [12_150_000_000], "values": [["[S2M]:CPU  1.00 mWs"]]}
