from dataclasses import replace

import pytest
from example import example, facts, two_devices

from pipeline.records import Report, Status
from pipeline.reporting.headline import by_target, headline, why


def _with_latency_factor(factor: float) -> Report:
    """`example` in which the chosen candidate takes `factor` × the baseline's time."""
    report = example()
    base = report.candidates[0].targets["local"]
    assert not hasattr(base.warm_ms, "reason")
    changed = replace(base, warm_ms=replace(base.warm_ms, median=base.warm_ms.median * factor))
    candidates = [replace(c, targets={"local": changed}) if c.recipe == report.chosen else c for c in report.candidates]
    return replace(report, candidates=tuple(candidates))


def test_a_better_candidate_is_shipped_with_what_it_wins_and_costs() -> None:
    expected = "Ship litert-int8: 3.7× smaller, 4.1× faster than litert-float32, 0.06 dB PSNR-Y lost"
    assert headline(example()) == expected


@pytest.mark.parametrize(
    ("factor", "phrase"), [(2.0, "2.0× slower than"), (0.5, "2.0× faster than"), (1.02, "as fast as litert-float32")]
)
def test_slower_is_said_as_slower(factor: float, phrase: str) -> None:
    assert phrase in headline(_with_latency_factor(factor))


def test_several_devices_are_named_and_the_silent_one_too() -> None:
    report = two_devices()
    assert "4.1× faster than litert-float32 on local, pi4-emulated (emulated: pi4-emulated)" in headline(report)
    assert headline(report).endswith("no numbers from pixel")
    assert by_target(report) == "local: litert-int8; pi4-emulated: litert-int8; pixel: no numbers"
    assert by_target(example()) == ""


def test_different_speeds_are_told_apart() -> None:
    report = two_devices()
    slow = report.candidates[5].targets["pi4-emulated"]
    candidates = [
        replace(c, targets={**c.targets, "pi4-emulated": slow}) if c.recipe == report.chosen else c
        for c in report.candidates
    ]
    assert "4.1× faster than litert-float32 on local and 24× slower on pi4-emulated (emu" in headline(
        replace(report, candidates=tuple(candidates))
    )


def test_without_times_the_size_is_compared() -> None:
    report = example()
    report = replace(report, candidates=tuple(replace(c, targets={}) for c in report.candidates))
    assert headline(report) == "Ship litert-int8: 3.7× smaller than litert-float32, 0.06 dB PSNR-Y lost"


def test_the_baseline_is_kept_with_its_reason() -> None:
    report = replace(example(), chosen="litert-float32", reason="every quantized candidate loses over 0.2 dB.")
    assert headline(report) == "Keep litert-float32: every quantized candidate loses over 0.2 dB"


def test_the_gates_own_keep_is_not_said_twice() -> None:
    report = replace(example(), chosen="onnx-float32", reason="keep float32 here: litert-int8 does not pass")
    assert headline(report) == "Keep float32 here: litert-int8 does not pass"
    assert why(report) == ""
    assert why(example()) == example().reason


@pytest.mark.parametrize(
    ("status", "opening"),
    [("fail", "Nothing passes: "), ("device-error", "No verdict, a device"), ("inconclusive", "No verdict, the ev")],
)
def test_no_choice_says_why(status: Status, opening: str) -> None:
    report = replace(example(), status=status, chosen=None, reason="latency")
    assert headline(report).startswith(opening)
    assert headline(report).endswith(": latency")


def test_times_of_an_emulated_device_are_labelled() -> None:
    report = replace(example(), facts={"local": facts("local", emulated="qemu")})
    assert "(emulated: local)" in headline(report)


def test_no_metric_falls_back_to_fidelity() -> None:
    report = example()
    report = replace(report, candidates=tuple(replace(c, metrics={}) for c in report.candidates))
    assert headline(report).endswith("SQNR against float 46.5 dB")
