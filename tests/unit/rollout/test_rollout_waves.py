"""Waves, gates and settings: pure, so any fleet can be thought through."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.rollout.gates import judge, slower, spent
from pipeline.rollout.records import BAD, Member, MemberState, Pair, WaveSize
from pipeline.rollout.settings import RolloutConfig
from pipeline.rollout.waves import foreseen, next_wave, totals

POLICY = RolloutConfig().policy()
SIZES = st.one_of(
    st.integers(1, 12).map(lambda count: WaveSize(count=count)),
    st.floats(0.01, 1.0).map(lambda share: WaveSize(share=share)),
)
WAVES = st.lists(SIZES, max_size=4).map(lambda sizes: (*sizes, WaveSize(share=1.0)))


def member(number: int, group: str = "a", state: MemberState = "waiting", **more: object) -> Member:
    return replace(Member(device=f"d{number}", device_class="default", group=group, state=state), **more)  # type: ignore[arg-type]


def test_the_default_waves_of_a_hundred_devices() -> None:
    fleet = [member(number) for number in range(100)]
    assert [len(wave) for wave in foreseen(fleet, POLICY.waves)] == [1, 9, 40, 50]
    assert totals(POLICY.waves, 30) == (1, 3, 15, 30)  # 10 % of 30 is 3, whatever binary says
    assert totals(POLICY.waves, 0) == (0, 0, 0, 0)


@given(groups=st.lists(st.sampled_from("abc"), max_size=40), waves=WAVES)
def test_every_device_comes_once_and_every_kind_has_its_own_canaries(groups: list[str], waves: tuple[WaveSize]) -> None:
    fleet = [member(number, group) for number, group in enumerate(groups)]
    planned = foreseen(fleet, waves)
    taken = [name for wave in planned for name in wave]
    assert sorted(taken) == sorted(one.device for one in fleet)
    if fleet:
        kinds = {one.device: one.group for one in fleet}
        for group in set(groups):
            canaries = [name for name in planned[0] if kinds[name] == group]
            assert len(canaries) == totals(waves, groups.count(group))[0]


@given(data=st.data(), waves=WAVES)
def test_no_kind_goes_on_without_evidence(data: st.DataObject, waves: tuple[WaveSize]) -> None:
    """Whatever becomes of the devices of a wave, the number with evidence never jumps over a level."""
    groups = data.draw(st.lists(st.sampled_from("ab"), min_size=1, max_size=25))
    fleet = {f"d{number}": member(number, group) for number, group in enumerate(groups)}
    for number in range(1, 100):
        batch = next_wave(list(fleet.values()), waves)
        if not batch:
            break
        for group in set(groups):
            mine = [one for one in fleet.values() if one.group == group and one.state != "pending"]
            seen = sum(one.state in BAD or one.state == "confirmed" for one in mine)
            after = seen + sum(fleet[name].group == group for name in batch)
            level = next((total for total in totals(waves, len(mine)) if total > seen), seen)
            assert after <= level
        for name in batch:
            state = data.draw(st.sampled_from(["confirmed", "pending", "failed", "reverted", "lost"]))
            fleet[name] = replace(fleet[name], state=state, wave=number)
    assert all(one.state != "waiting" for one in fleet.values())


def test_a_canary_that_is_off_is_replaced() -> None:
    fleet = [member(0, state="pending", wave=1), *(member(number) for number in range(1, 20))]
    assert next_wave(fleet, POLICY.waves) == ("d1",)


def test_devices_that_have_the_release_are_evidence() -> None:
    fleet = [*(member(number, state="unchanged") for number in range(10)), member(10), *map(member, range(11, 100))]
    assert len(next_wave(fleet, POLICY.waves)) == 40  # the canaries and the first tenth are done


def wave_of(good: int, bad: int, code: str = "disk-full") -> list[Member]:
    return [member(n, state="confirmed", wave=1) for n in range(good)] + [
        member(good + n, state="failed", wave=1, code=code) for n in range(bad)
    ]


@pytest.mark.parametrize(("good", "bad", "passed"), [(9, 1, True), (8, 2, False), (1, 0, True), (0, 1, False)])
def test_the_share_of_failures(good: int, bad: int, passed: bool) -> None:
    wave = wave_of(good, bad)
    assert judge(wave, wave, POLICY).passed is passed
    if not passed:
        assert spent(wave, POLICY)


def test_one_wrong_answer_stops_however_many_are_right() -> None:
    wave = wave_of(99, 1, code="answer")
    assert judge(wave, wave, POLICY).reasons == ("wrong answers on d99",)
    assert spent(wave, POLICY)


def test_the_error_budget_counts_all_waves() -> None:
    policy = replace(POLICY, error_budget=0.02, max_failures=0.5)
    fleet = [replace(one, wave=1) for one in wave_of(8, 2)] + [member(n, state="confirmed", wave=2) for n in (90, 91)]
    assert "error budget" in judge(fleet[-2:], fleet, policy).reasons[0]
    before = [replace(one, wave=0) for one in wave_of(8, 2)]  # found unfit by the plan: not the release's doing
    assert judge(fleet[-2:], [*before, *fleet[-2:]], policy).passed


def test_devices_that_were_not_reached_are_no_failures_and_no_evidence() -> None:
    wave = [member(number, state="pending", wave=1) for number in range(3)]
    verdict = judge(wave, wave, POLICY)
    assert verdict.passed and "tells nothing" in verdict.notes[0]


@given(
    ratios=st.lists(st.floats(0.8, 1.25), min_size=6, max_size=30),
    factor=st.floats(0.5, 2.0),
)
def test_the_speed_gate_depends_on_ratios_alone_and_is_sure_of_what_it_stops(
    ratios: list[float], factor: float
) -> None:
    pairs = [Pair(before_ms=1.0, after_ms=ratio) for ratio in ratios]
    scaled = [Pair(before_ms=factor, after_ms=factor * ratio) for ratio in ratios]
    assume(all(abs(ratio - 1.1) > 1e-6 for ratio in ratios))
    worse, told = slower(pairs, 0.1)
    assert slower(scaled, 0.1)[0] == worse
    if worse:
        assert max(ratios) > 1.1
    if min(ratios) > 1.1:
        assert worse and "slower" in told
    if max(ratios) < 1.1:
        assert "no worse" in told


def test_few_pairs_stop_nothing_and_say_so() -> None:
    worse, told = slower([Pair(before_ms=1.0, after_ms=9.0)] * 5, 0.1)
    assert not worse and "too few" in told


@pytest.mark.parametrize(
    "wrong",
    [
        {"waves": [1, "10 %"]},
        {"waves": [0, "100 %"]},
        {"waves": ["120 %"]},
        {"waves": []},
        {"max_failures": "3 apples"},
        {"on_failure": "pray"},
        {"keep": 1},
        {"soak": "-1 s"},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RolloutConfig.model_validate(wrong)


def test_nothing_is_a_good_value_where_it_means_something() -> None:
    config = RolloutConfig.model_validate({"soak": 0, "max_failures": "0 %", "error_budget": 0, "retries": 0})
    assert (config.soak, config.max_failures, config.error_budget) == (0, 0, 0)
