"""What the sensors of emulated boards say, read back as a meter reads it."""

import posixpath
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from targets.errors import UsageError
from targets.lab.power.battery import Battery
from targets.lab.power.ina import Ina226, Ina3221
from targets.lab.power.model import PowerParameters, State, booted, step
from targets.lab.power.pmic import Pmic
from targets.lab.power.rapl import Rapl
from targets.lab.power.sensors import MOUNT, Sensor, SensorSet, links
from targets.lab.power.truth import Truth, TruthLog, read_truth
from targets.lab.profiles import cores_of, profile, profiles

BOARD = PowerParameters(
    idle_w=3.0,
    busy_core_w=1.5,
    ambient_c=25.0,
    resistance_k_per_w=8.0,
    time_constant_s=20.0,
    throttle_c=80.0,
    release_c=75.0,
    throttled_share=0.55,
)
busy_cores = st.floats(0.0, 4.0)


def after(sensor: Sensor, cores: float, duration_s: float = 10.0) -> State:
    """A device that has been equally busy for a while, so that every mean is its power."""
    state = booted(BOARD, 0.0, 0.0, {sensor.interval_s} - {0.0})
    return step(BOARD, state, duration_s, cores * duration_s)


def numbers(sensor: Sensor, state: State) -> dict[str, float]:
    found = {}
    for name, value in sensor.files(BOARD, state).items():
        if re.fullmatch(r"-?\d+", str(value)):
            found[name] = int(str(value))
    return found


@given(busy_cores, st.integers(500, 100_000))
def test_an_ina226_shows_the_nearest_of_its_steps(cores: float, shunt_uohm: int) -> None:
    sensor = Ina226(bus_v=5.1, shunt_uohm=shunt_uohm)
    state, read = after(sensor, cores), numbers(sensor, after(sensor, cores))
    step_uw = 25 * 2.5 / shunt_uohm * 1e6  # the power register counts 25 steps of the current register
    assert read["power1_input"] / step_uw == pytest.approx(round(read["power1_input"] / step_uw), abs=1 / step_uw)
    assert abs(read["power1_input"] / 1e6 - state.power_w) <= (step_uw / 2 + 1) / 1e6
    product_w = read["curr1_input"] * read["in1_input"] / 1e6
    assert product_w == pytest.approx(state.power_w, abs=(step_uw / 25 * 5.1 / 2 + 5100) / 1e6)


def test_steps_of_the_usual_shunt_are_25_milliwatts() -> None:
    sensor = Ina226(bus_v=5.1)
    seen = {numbers(sensor, after(sensor, cores / 1000))["power1_input"] for cores in range(200)}
    assert seen == set(range(3_000_000, 3_300_001, 25_000))


@given(busy_cores)
def test_an_ina3221_has_rails_within_its_first(cores: float) -> None:
    sensor = Ina3221()
    state, files = after(sensor, cores), sensor.files(BOARD, after(sensor, cores))
    assert not any(name.startswith("power") for name in files)
    assert files["in1_label"] == "VDD_IN"
    watts = [int(str(files[f"in{k}_input"])) * int(str(files[f"curr{k}_input"])) / 1e6 for k in (1, 2, 3)]
    assert watts[0] == pytest.approx(state.power_w, abs=0.0205)  # half of 8 mA at 5 V, and half of a mA
    assert watts[1] + watts[2] < watts[0]


@given(busy_cores, st.integers(1, 10**9), st.floats(0.1, 3.0))
def test_an_energy_counter_that_wraps_still_gives_the_difference(
    cores: float, start_uj: int, duration_s: float
) -> None:
    """The range is above what is drawn between two readings, as it must be for anyone to tell."""
    sensor = Rapl(max_energy_range_uj=30_000_000, start_uj=start_uj)
    before, state = after(sensor, 0.0, 1e-9), after(sensor, cores, duration_s)
    read_uj = [numbers(sensor, each)["energy_uj"] for each in (before, state)]
    assert all(0 <= each < 30_000_000 for each in read_uj)
    assert (read_uj[1] - read_uj[0]) % 30_000_000 / 1e6 == pytest.approx(state.energy_j, abs=3e-6)


def test_domains_have_ranges_and_shares_of_their_own() -> None:
    package, core = Rapl(), Rapl(domain="0:0", name="core", max_energy_range_uj=65_532_610_987, idle_share=0.1)
    state = after(package, 2.0)
    drawn = [numbers(domain, state)["energy_uj"] / 1e6 for domain in (package, core)]
    assert drawn == pytest.approx([60.0, 33.0])
    assert package.root_only == {"energy_uj"} and Rapl(readable=True).root_only == set()


@given(busy_cores, st.sampled_from(["uA", "mA"]), st.sampled_from([-1, 1]))
def test_batteries_mean_the_same_power_whatever_their_driver_does(cores: float, unit: str, sign: int) -> None:
    sensor = Battery(current_unit=unit, discharge_sign=sign)  # type: ignore[arg-type]
    state, read = after(sensor, cores), numbers(sensor, after(sensor, cores))
    amperes = read["current_now"] / {"uA": 1e6, "mA": 1e3}[unit]
    assert amperes * sign > 0
    assert amperes * sign * read["voltage_now"] / 1e6 == pytest.approx(state.power_w, rel=2e-3)
    assert sensor.files(BOARD, state)["status"] == "Discharging"


def test_a_battery_runs_down_with_the_energy_that_was_drawn() -> None:
    sensor = Battery(capacity_j=600.0, charge=0.5)
    read = [numbers(sensor, after(sensor, 2.0, duration_s)) for duration_s in (1e-3, 25.0, 60.0)]  # at 6 W
    assert [each["capacity"] for each in read] == [49, 25, 0]
    assert read[0]["voltage_now"] > read[1]["voltage_now"] > read[2]["voltage_now"] == 3_500_000
    assert 250 < read[1]["temp"] < 600  # tenths of a degree


@given(busy_cores)
def test_a_pmic_prints_what_the_firmware_prints(cores: float) -> None:
    """Twelve rails with both meters; their sum is less than the board draws, by losses and by what no rail sees."""
    sensor = Pmic()
    state, text = after(sensor, cores), str(sensor.files(BOARD, after(sensor, cores))["pmic_read_adc"])
    lines = text.split("\n")
    assert len(lines) == 26
    assert lines[0].startswith(" 3V7_WL_SW_A current(0)=") and lines[12].startswith(" 3V7_WL_SW_V volt(8)=3.70")
    assert lines[24:] == ["     EXT5V_V volt(24)=5.17105900V", "      BATT_V volt(25)=0.00598290V"]
    read: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for line in lines:
        rail, kind, value, unit = re.fullmatch(r" *(\w+)_([AV]) \w+\(\d+\)=(\d+\.\d{8})([AV])", line).groups()  # type: ignore[union-attr]
        assert kind == unit
        read[kind][rail] = float(value)
    assert len(read["A"]) == 12 and read["V"].keys() - read["A"].keys() == {"EXT5V", "BATT"}
    sum_w = sum(amperes * read["V"][rail] for rail, amperes in read["A"].items())
    assert 1.145 * sum_w + 0.588 == pytest.approx(state.power_w, rel=1e-6)


@pytest.mark.parametrize("name", profiles())
def test_every_board_has_sensors_that_its_paths_lead_to(name: str) -> None:
    sensors = SensorSet.of(profile(name))
    state = booted(sensors.parameters, 0.0, 0.0, sensors.intervals_s())
    files = {f"{s.folder}/{file}" for s in sensors.sensors for file in s.files(sensors.parameters, state)}
    folders = {file.partition("/")[0] for file in files}
    made = dict(links(sensors.sensors))
    for path, target in made.items():
        reached = posixpath.relpath(posixpath.normpath(posixpath.join(posixpath.dirname(path), target)), str(MOUNT))
        assert reached in files | folders
    assert {"class/thermal/thermal_zone0", "class/hwmon/hwmon0"} <= made.keys()
    assert f"devices/system/cpu/cpu{len(cores_of(profile(name))) - 1}/cpufreq/scaling_cur_freq" in made
    # As the static files say it, so that nothing jumps where power and heat cannot be had.
    assert state.temperature_c == pytest.approx(profile(name)["temperature_mc"] / 1000, abs=0.5)


def test_a_profile_that_cannot_be_names_what_can() -> None:
    board = dict(profile("rpi4"))
    for wrong in ([{"kind": "ina999"}], [{"kind": "ina226"}], [{"kind": "pmic"}, {"kind": "pmic"}]):
        with pytest.raises(UsageError) as caught:
            SensorSet.of({**board, "sensors": wrong})
        assert "ina226" in caught.value.hint


def test_the_log_of_the_truth_stays_small_and_loses_only_its_oldest_part(tmp_path: Path) -> None:
    log = TruthLog(tmp_path / "truth.jsonl", max_bytes=2000)
    state = booted(BOARD, 0.0, 0.0, [])
    for _ in range(100):
        state = step(BOARD, state, state.now_s + 0.05, state.cpu_s + 0.02)
        log.append(Truth.of(state))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4000
    lines = list(read_truth(tmp_path / "truth.jsonl"))
    assert lines[-1] == Truth.of(state)
    assert len({line.t_monotonic_ns for line in lines}) == len(lines) > 10
    assert [line.energy_j for line in lines] == sorted(line.energy_j for line in lines)
