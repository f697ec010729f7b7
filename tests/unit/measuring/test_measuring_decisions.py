"""Statistics judged by the decisions they lead to, on devices whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_device import SyntheticDevice, facts, measurement, request

from pipeline.measuring.protocol import Plan, pairs, run
from pipeline.measuring.records import Block, Session
from pipeline.measuring.sameness import differences, mismatches
from pipeline.measuring.settling import Settled, settled
from pipeline.measuring.statistics import compare, latency, least_for_bound, process_medians_ms, quantile_bound
from pipeline.measuring.validity import findings
from targets.records import Absent

AB = Plan(
    requests={"A": request("a"), "B": request("b")},
    models={"A": "old", "B": "new"},
    files={"A": {}, "B": {}},
    least=10,
    most=40,
    max_s=60,
)
MARGIN = 0.025  # half-way between the two truths of the test


def session(device: SyntheticDevice, plan: Plan = AB) -> Session:
    return run(device, plan, clock=device.clock, sleep=device.sleep)


def one_after_the_other(device: SyntheticDevice, blocks: int) -> bool:
    """What is usually done: all of A, then all of B, and Welch's test of the samples at 5 %; is B slower by more?"""
    runs = {m: [device.bench(request(m), 1).warm_ns for _ in range(blocks)] for m in ("a", "b")}
    a, b = (np.log(np.concatenate(runs[m])) for m in ("a", "b"))
    error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return bool(b.mean() - a.mean() - np.log(1 + MARGIN) > 1.645 * error)


def test_two_hundred_comparisons_under_drift_and_throttling_decide_rightly() -> None:
    wrong = undecided = naive_wrong = 0
    for number in range(200):
        ratio = (1.0, 1.05)[number % 2]
        weather = {"drift_per_s": 0.004} if number % 4 < 2 else {"throttle_at_s": 12.0, "drift_per_s": 0.001}
        device = SyntheticDevice(ratio=ratio, seed=number, **weather)
        found = compare(pairs(session(device).blocks), MARGIN)
        right = "slower" if ratio > 1 else "not-slower"
        wrong += found.verdict not in (right, "undecided")
        undecided += found.verdict == "undecided"
        again = SyntheticDevice(ratio=ratio, seed=number, **weather)
        naive_wrong += one_after_the_other(again, 10) != (ratio > 1)
    assert wrong <= 10, "5 %"
    assert undecided <= 20, "who never decides is never wrong"
    assert naive_wrong >= 60, "else the weather is no test"


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    inside = sum(
        (found := compare(pairs(session(SyntheticDevice(ratio=1.02, seed=seed)).blocks), MARGIN).ratio).low
        <= 1.02
        <= found.high
        for seed in range(200)
    )
    assert inside >= 184, "95 % of 200, less three standard errors"


def test_blocks_are_interleaved_and_each_is_in_one_pair() -> None:
    labels = [block.label for block in session(SyntheticDevice()).blocks]
    for start in range(0, len(labels), 4):
        assert labels[start : start + 4] in (list("ABBA"), list("BAAB"))
    assert len({"".join(labels[n : n + 4]) for n in range(0, len(labels), 4)}) == 2, "never the same way round"
    assert len(pairs(session(SyntheticDevice()).blocks)) == len(labels) // 2


def test_it_stops_when_narrow_and_when_time_is_up() -> None:
    alone = replace(AB, requests={"A": request("a")}, models={"A": "m"}, files={"A": {}}, least=5)
    calm = session(SyntheticDevice(between=0.001, within=0.001), alone)
    assert (len(calm.blocks), calm.stopped[:13]) == (5, "narrow enough")
    loud = session(SyntheticDevice(between=0.2), replace(alone, max_s=12, most=100))
    assert loud.stopped.startswith("time is up") and loud.seconds <= 12


def test_a_hot_device_is_waited_for_and_not_for_ever() -> None:
    device = SyntheticDevice(facts_=facts(temperature_c=80.0))
    found = session(device, replace(AB, gate_c=60.0, gate_wait_s=5, least=3, max_s=10))
    assert all(5 <= block.waited_s <= 8 for block in found.blocks)


@pytest.mark.parametrize(
    ("conditions", "doubt", "said"),
    [
        ({"throttled_before": "0x0", "throttled_after": "0x20000"}, "throttled", "every block"),
        ({"throttled_before": "0x20000", "throttled_after": "0x20000"}, None, ""),
        ({"throttled_before": "0x0", "throttled_after": "0x10001"}, "under-voltage", "supply"),
        ({"other_cpu_share": "0.31"}, "background-load", "31% of a CPU"),
        ({"clock_step_ms": "-3600000"}, "clock-jump", "was set by"),
        ({"other_cpu_share": "0.01", "clock_step_ms": "0.2", "throttled_after": "nonsense"}, None, ""),
    ],
)
def test_what_was_observed_becomes_a_doubt(conditions: dict[str, str], doubt: str | None, said: str) -> None:
    blocks = [
        Block(label="A", start_s=n, measurement=measurement("a", np.full(9, 5_000_000), **conditions)) for n in range(5)
    ]
    found = {finding.doubt: finding for finding in findings(facts(), blocks)}
    assert set(found) == ({doubt} if doubt else set())
    if doubt:
        assert said in found[doubt].reason  # type: ignore[index]
        assert found[doubt].remedy  # type: ignore[index]


def test_a_slow_clock_in_one_block_is_throttling_and_in_sustained_mode_the_result() -> None:
    clocks = ["1800000", "1800000", "1200000", "1800000", "1800000"]
    blocks = [
        Block(
            label="A",
            start_s=n,
            measurement=measurement(
                "a", np.full(9, 5_000_000), cpu_freq_khz_lowest=khz, cpu_freq_khz_highest="1800000"
            ),
        )
        for n, khz in enumerate(clocks)
    ]
    (found,) = findings(facts(), blocks)
    assert found.doubt == "throttled" and "block 3 of 5" in found.reason and found.blocking
    (found,) = findings(facts(), blocks, sustained=True)
    assert not found.blocking


def test_drift_few_processes_and_instability_are_seen_in_the_numbers() -> None:
    alone = replace(AB, requests={"A": request("a")}, models={"A": "m"}, files={"A": {}}, least=12, narrow=0)
    assert {f.doubt for f in session(SyntheticDevice(drift_per_s=0.01), alone).findings} == {"drifting"}
    assert {f.doubt for f in session(SyntheticDevice(between=0.3), alone).findings} == {"unstable"}
    assert not session(SyntheticDevice(), alone).findings
    few = replace(alone, least=2, most=2)
    assert {f.doubt for f in session(SyntheticDevice(), few).findings} == {"too-few-samples"}
    emulated = SyntheticDevice(facts_=facts(emulated="qemu-user"))
    assert {f.doubt for f in session(emulated, alone).findings} == {"emulated"}


def test_unlike_conditions_are_told_and_another_model_is_not() -> None:
    one = session(SyntheticDevice(), replace(AB, least=3, most=6))
    assert differences(one, one, same_device=True) == []
    other = replace(one, target="pi-2", mode="sustained", facts=facts(cpu_model="4x Cortex-A72"))
    assert differences(one, other, same_device=True) == [
        "devices: pi and pi-2",
        "cpu model: 4x Cortex-A76 and 4x Cortex-A72",
        "mode: cool and sustained",
    ]
    quicker = [replace(b, measurement=replace(b.measurement, threads=4)) for b in one.blocks]
    assert differences(one, replace(one, blocks=tuple(quicker)), same_device=True) == ["threads: 1 and 4"]


def test_a_and_b_of_one_session_must_have_been_alike() -> None:
    found = session(SyntheticDevice(), replace(AB, least=3, most=6))
    assert mismatches(found) == []
    slow = [
        replace(b, measurement=replace(b.measurement, conditions={"governor_before": "powersave"}))
        if b.label == "B"
        else replace(b, measurement=replace(b.measurement, conditions={"governor_before": "performance"}))
        for b in found.blocks
    ]
    assert mismatches(replace(found, blocks=tuple(slow))) == ["governor: performance and powersave"]


def test_a_bound_of_p99_takes_459_samples_and_then_bounds_it() -> None:
    assert least_for_bound(0.99) == 459
    draw = np.random.default_rng(1)
    assert quantile_bound(draw.exponential(size=458), 0.99) is None
    truth = -np.log(0.01)
    kept = sum(bool((quantile_bound(draw.exponential(size=600), 0.99) or 0) >= truth) for _ in range(300))
    assert kept >= 294 - 3
    few = latency([Block(label="A", start_s=0, measurement=measurement("a", np.arange(5) + 5_000_000))])
    assert isinstance(few.p99, Absent) and isinstance(few.p99_bound, Absent) and isinstance(few.between_cv, Absent)


def test_a_comparison_needs_pairs_and_says_what_it_could_have_seen() -> None:
    found = session(SyntheticDevice(within=0.001, between=0.001), replace(AB, least=6))
    assert compare(pairs(found.blocks), 0.02).smallest_detectable < 0.01
    assert len(process_medians_ms(found.of("A"))) == len(found.of("B"))
    with pytest.raises(ValueError, match="3 pairs"):
        compare(pairs(found.blocks)[:2], 0.02)


def test_draws_of_equal_values_leave_an_interval() -> None:
    """Five pairs of which three agree: many draws of the bootstrap have no spread."""
    blocks = [
        (
            Block(label="A", start_s=n, measurement=measurement("a", np.full(9, 5_000_000))),
            Block(label="B", start_s=n, measurement=measurement("b", np.full(9, ns))),
        )
        for n, ns in enumerate((10_000_000, 10_000_000, 10_000_000, 10_100_000, 11_000_000))
    ]
    found = compare(blocks, MARGIN)
    assert found.verdict == "slower" and found.ratio.low <= found.ratio.value <= found.ratio.high


@pytest.mark.parametrize("swing", [0.0, 0.1])
def test_what_a_throttled_device_settles_at_and_when_it_began(swing: float) -> None:
    draw = np.random.default_rng(3)
    levels = [5.0] * 10 + [6.0, 7.0] + [8.0] * 20
    noise = 1 + draw.normal(0, 0.005, len(levels)) + swing * (np.arange(len(levels)) % 2) * (np.array(levels) > 7)
    blocks = [
        Block(label="A", start_s=float(n), measurement=measurement("a", np.full(9, int(level * own * 1e6))))
        for n, (level, own) in enumerate(zip(levels, noise, strict=True))
    ]
    found = settled(blocks)
    assert isinstance(found, Settled)
    assert found.steady_ms == pytest.approx(8.0 * (1 + swing / 2), rel=0.07)
    assert 10 <= found.after_s <= 13
    assert found.throttled_after_s == 10.0
    short = settled(blocks[8:15])
    assert isinstance(short, Absent) and "measure longer" in short.reason


@pytest.mark.parametrize("after", [2, 4, 5, 8, 15, 40])
def test_a_step_late_in_the_session_is_not_slept_through(after: int) -> None:
    draw = np.random.default_rng(after)
    levels = np.array([16.0] * 40 + [29.0] * after) * np.exp(draw.normal(0, 0.02, 40 + after))
    blocks = [
        Block(label="A", start_s=float(n), measurement=measurement("a", np.full(9, int(level * 1e6))))
        for n, level in enumerate(levels)
    ]
    found = settled(blocks)
    if after < 6:
        assert isinstance(found, Absent), "too few blocks at the new level"
    else:
        assert isinstance(found, Settled)
        assert found.steady_ms == pytest.approx(29.0, rel=0.03)
        assert 40 <= found.after_s <= 42 and found.throttled_after_s == 40.0


def test_what_stands_still_is_settled_from_the_beginning() -> None:
    early = 0
    for seed in range(50):
        noise = np.exp(np.random.default_rng(seed).normal(0, 0.03, 60))
        blocks = [
            Block(label="A", start_s=float(n), measurement=measurement("a", np.full(9, int(16e6 * own))))
            for n, own in enumerate(noise)
        ]
        found = settled(blocks)
        early += isinstance(found, Settled) and found.after_s <= 5
    assert early >= 45
