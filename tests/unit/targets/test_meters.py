"""The meters against the sensors of the device lab, whose truth is known, and against what real drivers make of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from power_world import BOOT_NS, World
from power_world import Sensor as Meter

from pipeline.quality.energy import energy_of
from pipeline.quality.power import curve
from targets.errors import InputError, UsageError
from targets.lab.power.battery import Battery
from targets.lab.power.ina import Ina226, Ina3221
from targets.lab.power.model import PowerParameters, State, booted, step
from targets.lab.power.odpm import Odpm
from targets.lab.power.pmic import Pmic
from targets.lab.power.rapl import Rapl
from targets.lab.power.sensors import Sensor
from targets.meter import Readings
from targets.metering import Metering, metering, power_sources
from targets.meters import device_meters, log_meter
from targets.meters.csv_log import CsvLog, columns
from targets.records import Absent, EnergyPlan, PowerSource, PowerTrace

PARAMETERS = PowerParameters(
    idle_w=2.7,
    busy_core_w=1.0,
    ambient_c=25,
    resistance_k_per_w=8,
    time_constant_s=60,
    throttle_c=80,
    release_c=77,
    throttled_share=0.5,
)
PLAN = EnergyPlan(windows=5, window_s=10, idle_s=4)
HWMON = "/sys/class/hwmon/hwmon1"


def states(*sensors: Sensor, busy: bool = True, seconds: int = 12) -> list[State]:
    """A device every quarter of a second; its processor works in every other second."""
    state = booted(PARAMETERS, 0.0, 0.0, {sensor.interval_s for sensor in sensors if sensor.interval_s})
    found, cpu_s = [state], 0.0
    for quarter in range(1, 4 * seconds):
        for part in range(5):  # the sensor's own conversions lie between
            cpu_s += 0.05 * (busy and quarter // 4 % 2)
            state = step(PARAMETERS, state, (quarter - 1 + (part + 1) / 5) / 4, cpu_s)
        found.append(state)
    return found


def texts(sensor: Sensor, folder: str, state: State) -> dict[str, str]:
    return {f"{folder}/{name}": str(value) for name, value in sensor.files(PARAMETERS, state).items()}


def read(source: PowerSource, sensor: Sensor, folder: str, seen: Sequence[State]) -> PowerTrace | Absent:
    values = [tuple(texts(sensor, folder, state)[file] for file in source.files) for state in seen]
    if source.command:
        values = [(str(sensor.files(PARAMETERS, state)[source.command]),) for state in seen]
    moments = tuple(round(state.now_s * 1e9) for state in seen)
    return device_meters()[source.meter].trace(source, Readings(time_ns=moments, values=tuple(values)))


def only(sensors: Mapping[str, str]) -> PowerSource:
    (source,) = (source for source in power_sources(sensors) if source.kind == "measured")
    return source


@pytest.mark.parametrize(
    ("sensor", "folder", "meter"),
    [
        (Ina226(bus_v=5.1), HWMON, "ina2xx"),
        (Ina226(bus_v=5.1, shunt_uohm=100_000), HWMON, "ina2xx"),
        (Ina3221(), HWMON, "ina3221"),
        (Battery(), "/sys/class/power_supply/battery", "battery"),
        (Battery(current_unit="mA", discharge_sign=1, supply="bms"), "/sys/class/power_supply/bms", "battery"),
        (Battery(current_unit="mA"), "/sys/class/power_supply/battery", "battery"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_sensor_is_read_as_what_it_measures(sensor: Sensor, folder: str, meter: str) -> None:
    seen = states(sensor)
    source = only(texts(sensor, folder, seen[0]))
    assert (source.meter, source.place, source.refused) == (meter, folder, "")
    trace = read(source, sensor, folder, seen)
    assert isinstance(trace, PowerTrace)
    wanted = [state.mean_w(sensor.interval_s) for state in seen]
    # Half a step, and the driver's milliamperes and millivolts.
    assert trace.power_w == pytest.approx(wanted, abs=source.resolution_w / 2 + 0.012)
    assert np.ptp(trace.power_w) > 0.5


def test_the_finer_of_product_and_register_is_read() -> None:
    """At 2.5 mOhm the power register has steps of 25 mW, milliamperes at 5 V of 5; at 100 mOhm 0.6 mW."""
    state = booted(PARAMETERS, 0.0, 0.0, {0.035})
    coarse, fine = (only(texts(Ina226(bus_v=5.1, shunt_uohm=ohm), HWMON, state)) for ohm in (2500, 100_000))
    assert [file.rpartition("/")[2] for file in coarse.files] == ["curr1_input", "in1_input"]
    assert coarse.resolution_w == pytest.approx(0.0051)
    assert [file.rpartition("/")[2] for file in fine.files] == ["power1_input"]
    assert fine.resolution_w == pytest.approx(0.000625)


def test_the_input_of_a_jetson_is_not_added_to_what_it_feeds() -> None:
    state = booted(PARAMETERS, 0.0, 0.0, {0.0066})
    files = texts(Ina3221(), HWMON, state)
    assert {file.rpartition("/")[2] for file in only(files).files} == {"curr1_input", "in1_input"}
    renamed = {path: text.replace("VDD_IN", "5V0_CAM") for path, text in files.items()}
    assert len(only(renamed).files) == 6  # three lines that do not contain each other


def test_the_rails_of_a_pi_5_are_added_and_its_estimate_is_never_chosen() -> None:
    sensor = Pmic()
    seen = states(sensor)
    sensors = {"command:pmic_read_adc": str(sensor.files(PARAMETERS, seen[0])["pmic_read_adc"])}
    rails, board = power_sources(sensors)
    assert (rails.meter, rails.kind, board.meter, board.kind) == ("rpi5-pmic", "measured", "rpi5-board", "modelled")
    wanted = np.array([state.mean_w(0.035) for state in seen])
    for source, truth in ((rails, (wanted - 0.588) / 1.145), (board, wanted)):
        trace = read(source, sensor, "", seen)
        assert isinstance(trace, PowerTrace) and trace.kind == source.kind
        assert trace.power_w == pytest.approx(truth, abs=0.01)
    chosen = metering("pi", "", PLAN, (rails, board))
    assert isinstance(chosen, Metering) and chosen.source == rails
    half = {"command:pmic_read_adc": sensors["command:pmic_read_adc"][:600]}
    assert power_sources(half) == ()


def test_packages_are_added_and_nothing_that_is_in_them() -> None:
    half = {"idle_share": 0.5, "busy_share": 0.5}
    domains = [
        Rapl(max_energy_range_uj=40_000_000, start_uj=30_000_000, readable=True, **half),
        Rapl(domain="1", name="package-1", max_energy_range_uj=50_000_000, readable=True, **half),
        Rapl(domain="0:0", name="core"),
        Rapl(domain="0:2", name="dram"),
        Rapl(domain="2", name="psys"),
    ]  # fmt: skip
    seen = states(seconds=30)

    def all_texts(state: State) -> dict[str, str]:
        return {k: v for d in domains for k, v in texts(d, f"/sys/class/powercap/intel-rapl:{d.domain}", state).items()}

    source = only(all_texts(seen[0]))
    assert source.scope.startswith("processor (package-0, package-1)")
    values = tuple(tuple(all_texts(state)[file] for file in source.files) for state in seen)
    stamps = tuple(round(state.now_s * 1e9) for state in seen)
    trace = device_meters()["rapl"].trace(source, Readings(time_ns=stamps, values=values))
    assert isinstance(trace, PowerTrace) and {counter.range_j for counter in trace.counters} == {40.0, 50.0}
    assert curve(trace).energy_j[-1] == pytest.approx(seen[-1].energy_j - seen[0].energy_j, rel=1e-4)
    secret = {path: "" if path.endswith("energy_uj") else text for path, text in all_texts(seen[0]).items()}
    assert "only root" in only(secret).refused


ODPM = """t={t}
CH0(T={t})[S1M_VDD_CPUCL2], {big}
CH1(T={t})[VSYS_PWR_MODEM], {modem}
CH2(T={t})[L2S_VDD_AOC_RET], {inner}"""


def test_rails_of_a_pixel_are_added_without_those_that_others_feed() -> None:
    path = "/sys/bus/iio/devices/iio:device0/energy_value"

    def text(second: int) -> str:
        return ODPM.format(t=1000 * second, big=900_000 * second, modem=100_000 * second, inner=50_000 * second)

    source = only({path: text(3)})
    assert (source.meter, source.scope) == ("odpm", "2 rails of the phone's power chips, not its losses")
    readings = Readings(time_ns=tuple(range(0, 4 * 10**9, 10**9)), values=tuple((text(n),) for n in (3, 4, 5, 6)))
    trace = device_meters()["odpm"].trace(source, readings)
    assert isinstance(trace, PowerTrace)
    assert sum(c.readings_j[-1] - c.readings_j[0] for c in trace.counters) == pytest.approx(3.0)
    assert "only root" in only({path: ""}).refused


def test_rails_that_only_the_hal_may_read_are_asked_of_it() -> None:
    seen = states(Odpm())
    said = [texts(Odpm(), "hal", state)["hal/hal"] for state in seen]
    consumers = (
        "\n============= PowerStats HAL 2.0 energy consumers ==============\n   CPU   123.45 mWs\n========== End\n"
    )
    source = only({"/sys/bus/iio/devices/iio:device0/energy_value": "", "command:powerstats": consumers + said[0]})
    assert (source.command, source.files, source.refused) == ("powerstats", (), "")
    assert source.scope.startswith("7 rails"), "the eighth is fed by another one"
    readings = Readings(time_ns=tuple(round(s.now_s * 1e9) for s in seen), values=tuple((consumers + t,) for t in said))
    trace = device_meters()["odpm"].trace(source, readings)
    assert isinstance(trace, PowerTrace)
    drawn_j = sum(counter.readings_j[-1] - counter.readings_j[0] for counter in trace.counters)
    assert drawn_j == pytest.approx(seen[-1].energy_j - seen[0].energy_j, rel=1e-3)


def battery(state: State, **changes: str) -> dict[str, str]:
    folder = "/sys/class/power_supply/battery"
    return {**texts(Battery(), folder, state), **{f"{folder}/{name}": text for name, text in changes.items()}}


def test_a_battery_that_charges_is_refused_before_and_during_the_run() -> None:
    seen = states(Battery())
    for status in ("Charging", "Full", "Not charging"):
        source = only(battery(seen[0], status=status))
        assert status.lower() in source.refused
        found = metering("phone", "", PLAN, (source,))
        assert isinstance(found, Absent) and "unplug" in found.reason
    charger = {"/sys/class/power_supply/usb/type": "USB", "/sys/class/power_supply/usb/online": "1"}
    assert "usb is connected" in only({**battery(seen[0]), **charger}).refused
    source = only(battery(seen[0]))
    values = [(battery(s)[source.files[0]], battery(s)[source.files[1]], "Discharging") for s in seen]
    values[20] = (*values[20][:2], "Charging")
    plugged = Readings(time_ns=tuple(round(s.now_s * 1e9) for s in seen), values=tuple(values))
    found = device_meters()["battery"].trace(source, plugged)
    assert isinstance(found, Absent) and "charging during the run" in found.reason


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=40, max_size=40).filter(lambda flips: 4 <= sum(flips) <= 36))
def test_a_current_that_changes_its_sign_is_refused(flips: list[bool]) -> None:
    source = only(battery(booted(PARAMETERS, 0.0, 0.0, {1.0})))
    values = tuple((str(-500_000 if flip else 500_000), "4000000", "Discharging") for flip in flips)
    found = device_meters()["battery"].trace(source, Readings(time_ns=tuple(range(40)), values=values))
    assert isinstance(found, Absent) and "changed its sign" in found.reason


@given(watts=st.floats(0.25, 15), volts=st.floats(3.3, 9), milli=st.booleans(), sign=st.sampled_from([1, -1]))
def test_unit_and_sign_of_a_battery_follow_from_what_a_phone_can_draw(
    watts: float, volts: float, milli: bool, sign: int
) -> None:
    source = only(battery(booted(PARAMETERS, 0.0, 0.0, {1.0})))
    current = round(sign * watts / volts * (1e3 if milli else 1e6))
    value = (str(current), str(round(volts * 1e6)), "Discharging")
    found = device_meters()["battery"].trace(source, Readings(time_ns=(0, 1, 2), values=(value,) * 3))
    assert isinstance(found, PowerTrace)
    assert found.power_w[0] == pytest.approx(watts, rel=0.02)


def test_a_reading_that_failed_is_left_out() -> None:
    source = only(texts(Ina226(bus_v=5.1), HWMON, booted(PARAMETERS, 0.0, 0.0, {0.035})))
    readings = Readings(time_ns=(1, 2, 3), values=(("500", "5100"), ("", "5100"), ("510", "5100")))
    found = device_meters()["ina2xx"].trace(source, readings)
    assert isinstance(found, PowerTrace) and found.time_ns == (1, 3)
    nothing = device_meters()["ina2xx"].trace(source, replace(readings, values=(("", ""),) * 3))
    assert isinstance(nothing, Absent)


def test_the_best_meter_is_taken_and_one_can_be_named() -> None:
    state = booted(PARAMETERS, 0.0, 0.0, {0.035, 1.0})
    everything = {**texts(Ina226(bus_v=5.1), HWMON, state), **battery(state)}
    sources = power_sources(everything)
    assert [source.meter for source in sources] == ["ina2xx", "battery"]
    for asked, meter in (("", "ina2xx"), ("battery", "battery"), ("ina2xx:hwmon1", "ina2xx")):
        found = metering("pi", asked, PLAN, sources)
        assert isinstance(found, Metering) and found.source and found.source.meter == meter
    assert isinstance(metering("pi", "none", PLAN, sources), Absent)
    assert isinstance(metering("pi", "", None, sources), Absent)
    with pytest.raises(InputError, match="no meter 'rapl'; it has ina2xx:/sys/class/hwmon/hwmon1, battery"):
        metering("pi", "rapl", PLAN, sources)
    second = texts(Ina226(bus_v=12), "/sys/class/hwmon/hwmon2", state)
    two = metering("pi", "", PLAN, power_sources({**everything, **second}))
    assert isinstance(two, Absent) and "say which" in two.reason
    chosen = metering("pi", "ina2xx:hwmon2", PLAN, power_sources({**everything, **second}))
    assert isinstance(chosen, Metering) and chosen.source and chosen.source.place.endswith("hwmon2")


# --- logs -------------------------------------------------------------------------------------------------------------


def write_log(path: Path, world: World, offset_s: float, step_s: float = 0.02, margin_s: float = 3.0) -> None:
    at = np.arange(-margin_s, world.end_s + margin_s, step_s)
    edge = np.clip(at, 0, world.end_s)
    power_w = np.gradient(world.energy_j(edge), step_s)
    power_w[(at < step_s) | (at > world.end_s - step_s)] = world.idle_w
    with path.open("a") as file:
        for moment, watts in zip(at, power_w, strict=True):
            file.write(f"{(BOOT_NS * 1e-9 + moment + offset_s) * 1e3:.3f},{watts * 1e3:.3f}\n")


@settings(max_examples=10)
@given(offset_s=st.floats(-4000, 1e6), seed=st.integers(0, 99))
def test_an_external_log_is_aligned_by_the_steps_of_the_load(
    tmp_path_factory: pytest.TempPathFactory, offset_s: float, seed: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "meter.csv"
    path.write_text("Time (ms),Power [mW]\n")
    world = World(idle_w=2.7, busy_w=1.3, window_s=2.0, idle_s=0.8 + seed / 100)
    write_log(path, replace(world, busy_w=3.0), offset_s - 500)  # what somebody measured before is not ours
    log = CsvLog(str(path))
    log.begin()
    write_log(path, world, offset_s)
    found = log.trace(world.made())
    assert isinstance(found, PowerTrace)
    first_s = (found.time_ns[0] - BOOT_NS) * 1e-9
    assert first_s == pytest.approx(-3.0, abs=0.03)
    energy = energy_of(found)
    assert not isinstance(energy, Absent)
    assert energy.gross_j == pytest.approx(world.true_gross_j(), rel=1e-3)
    assert energy.net_j == pytest.approx(world.true_net_j(), rel=3e-3)


def test_a_log_that_stands_still_or_shows_no_load_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "meter.csv"
    path.write_text("time_s,voltage_v,current_ma\n")
    world = World(idle_w=2.7, busy_w=0.0, windows=2, window_s=1.0, idle_s=0.4)
    log = CsvLog(str(path))
    log.begin()
    with path.open("a") as file:
        noise = np.random.default_rng(0).normal(540, 5, 600)
        file.writelines(f"{at * 0.02},5.0,{milliamperes}\n" for at, milliamperes in enumerate(noise))
    found = log.trace(world.made())
    assert isinstance(found, Absent) and "no step of the load" in found.reason
    log.begin()
    found = log.trace(world.made(), late_s=0.3)
    assert isinstance(found, Absent) and "grew by 0 s" in found.reason


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("time_s,power_w", {"time": (0, 1.0), "power": (1, 1.0)}),
        ("Timestamp (us); x,Power(mW)", {"time": (0, 1e-6), "power": (1, 1e-3)}),
        ("n,time[ms],voltage_v,current_ua", {"time": (1, 1e-3), "voltage": (2, 1.0), "current": (3, 1e-6)}),
        ("time,voltage", {"time": (0, 1.0)}),
        ("", {}),
    ],
)
def test_columns_of_a_log(header: str, wanted: dict[str, tuple[int, float]]) -> None:
    assert columns(header) == wanted


def test_a_stored_trace_is_replayed_and_is_no_measurement(tmp_path: Path) -> None:
    world = World(idle_w=2.0, busy_w=1.0)
    trace = Meter().trace(world, np.random.default_rng(0))
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(asdict(trace)))
    log = log_meter(f"replay:{path}")
    assert log
    log.begin()
    assert log.trace(()) == replace(trace, kind="replayed")
    path.write_text("{}")
    with pytest.raises(InputError, match="no stored power trace"):
        log.begin()
    with pytest.raises(InputError, match="No such file"):
        CsvLog(str(tmp_path / "gone.csv")).begin()
    with pytest.raises(UsageError, match="needs a file"):
        log_meter("csv")
