"""faults.yaml as it is read, and the faults that are drawn from it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.rehearsal.draw import draw
from pipeline.rehearsal.schedule import Schedule, fault_text, load_schedule, parse_fault
from pipeline.reporting.rehearsal import call, when
from targets.lab.lab import Wanted, plan
from targets.lab.state import LabDevice

DEVICES = plan(Wanted(counts={"ssh": 20, "arm64": 4}))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("cut", ("cut", None)),
        ("cut-after=4MB", ("cut-after", 4e6)),
        ("loss=5%", ("loss", 0.05)),
        ("clock=-3d", ("clock", -259200.0)),
        ("clock=2h", ("clock", 7200.0)),
        ("delay=100ms", ("delay", 0.1)),
        ("reboot", ("reboot", None)),
    ],
)
def test_a_fault_is_written_as_for_the_command_line(text: str, meant: tuple[str, float | None]) -> None:
    assert parse_fault(text) == pytest.approx(meant)


@pytest.mark.parametrize(
    "text", ["burn", "cut=3", "rate", "rate=fast", "delay=-1s", "loss=5MB", "cut-after=", "", "loss=150%"]
)
def test_what_is_no_fault_is_refused_with_advice(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_fault(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("faults:\n  - {on: pi-0, fault: burn}\n", ":2: faults[0].fault: burn: no fault of the lab"),
        (
            "faults:\n  - on: pi-0\n    fault: cut\n    when: {step: pusch}\n",
            ":4: faults[0].when.step: should be a stage",
        ),
        (
            "faults:\n  - on: pi-0\n    fault: cut\n    wenn: 3 s\n",
            ":4: faults[0].wenn: unknown key, did you",
        ),
        ("lab: {ssh: many}\nfaults:\n  - {on: all, fault: cut}\n", ":1: lab: ssh should be a number of devices"),
        ("lab: {toaster: 1}\nfaults:\n  - {on: all, fault: cut}\n", ":1: lab: unknown key 'toaster'"),
        ("faults: []\n", ":1: faults: should have 1 or more"),
        ("faults:\n  - {on: {share: 150 %}, fault: cut}\n", ":2: faults[0].on.share: should be"),
    ],
)
def test_errors_name_the_line_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_schedule(path)
    assert f"{path}{said}" in caught.value.message


def schedule(*faults: dict[str, object], seed: int = 0) -> Schedule:
    return Schedule.model_validate({"seed": seed, "faults": faults})


def test_conditions_are_kept_and_told_in_the_order_they_are_waited_for() -> None:
    entry = {"on": "pi-3", "fault": "cut-after=4MB", "when": {"step": "push", "after": "2 s", "bytes": "1 MB"}}
    (fault,) = draw(schedule({**entry, "restore_after": "5 s"}), DEVICES)
    assert (fault.device, fault.step, fault.after_s, fault.bytes, fault.restore_after_s) == (
        "pi-3",
        "push",
        2.0,
        1_000_000,
        5.0,
    )
    assert call(fault) == "cut-after=4.00MB"
    assert when(fault) == "when push begins, after 2 s, after 1.00 MB"


@given(seed=st.integers(), share=st.integers(1, 100), kind=st.sampled_from([None, "ssh", "arm64"]))
def test_a_share_is_so_many_devices_of_the_kind_and_the_same_for_the_same_seed(
    seed: int, share: int, kind: str | None
) -> None:
    drawn = schedule(
        {"on": {"share": f"{share} %", "kind": kind}, "fault": "cut", "when": {"within": "9 s"}}, seed=seed
    )
    faults = draw(drawn, DEVICES)
    suiting = [device for device in DEVICES if kind in (None, device.kind)]
    assert len(faults) == max(1, round(share / 100 * len(suiting)))
    assert len({fault.device for fault in faults}) == len(faults)
    assert {fault.device for fault in faults} <= {device.name for device in suiting}
    assert all(0 <= fault.after_s <= 9 for fault in faults)
    assert draw(drawn, DEVICES) == faults


@given(seed=st.integers())
def test_one_more_entry_leaves_the_others_as_they_were(seed: int) -> None:
    first: dict[str, object] = {"on": {"count": 3}, "fault": "cut", "when": {"within": "9 s"}}
    more: dict[str, object] = {"on": {"share": "50 %"}, "fault": "full"}
    alone, both = draw(schedule(first, seed=seed), DEVICES), draw(schedule(first, more, seed=seed), DEVICES)
    assert both[: len(alone)] == alone


@pytest.mark.parametrize(
    "text", ["cut-after=4.00MB", "clock=-3d", "delay=100ms", "loss=5%", "heat=40K", "reboot=90s", "full"]
)
def test_a_fault_is_told_as_it_is_written(text: str) -> None:
    assert fault_text(*parse_fault(text)) == text


def test_more_devices_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(UsageError, match=r"faults\[0\].on: 5 of 4 devices"):
        draw(schedule({"on": {"count": 5, "kind": "arm64"}, "fault": "cut"}), DEVICES)
    with pytest.raises(UsageError, match="have a temperature"):
        draw(schedule({"on": "pi-0", "fault": "heat=40K"}), DEVICES)


def test_two_seeds_draw_different_devices() -> None:
    def chosen(seed: int) -> set[str]:
        return {fault.device for fault in draw(schedule({"on": {"count": 5}, "fault": "cut"}, seed=seed), DEVICES)}

    assert len({frozenset(chosen(seed)) for seed in range(10)}) > 5


@pytest.mark.parametrize("on", ["pi-99", ["pi-0", "rpi5-0"], {"kind": "vax"}])
def test_a_device_that_is_not_there_is_an_error_before_anything_starts(on: object) -> None:
    with pytest.raises(UsageError, match=r"faults\[1\].on"):
        draw(schedule({"on": "all", "fault": "cut"}, {"on": on, "fault": "cut"}), DEVICES)


def test_a_fault_that_a_device_cannot_have_is_an_error_before_anything_starts() -> None:
    phone = LabDevice(name="phone-0", kind="adbd", service="adb", address="", port=0, python="", disk_bytes=0)
    with pytest.raises(UsageError, match=r"faults\[0\].*hostkey is for devices with ssh, not for phone-0"):
        draw(schedule({"on": "phone-0", "fault": "hostkey"}), (phone,))
