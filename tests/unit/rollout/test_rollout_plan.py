"""One device's plan and one device's status, from what is known of it."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fleet_in_memory import Board, Fuse, Link, release_of, spec_of

from pipeline.reporting.rollout import ago, duration
from pipeline.rollout.pace import Took, learned
from pipeline.rollout.plan import STEP_S, Wish, member_of, plan_device, plan_rollout, proved
from pipeline.rollout.records import NOTHING_BEFORE, Member, Rollout, Seen
from pipeline.rollout.release import Model
from pipeline.rollout.settings import RolloutConfig
from pipeline.rollout.status import Known, status_of
from targets.glance import Glance
from targets.records import Absent, Facts, Failed

OLD, NEW = release_of("net", 1), release_of("net", 2)
POLICY = RolloutConfig().policy()
WISH = Wish(release=NEW, policy=POLICY, owner="journal 1")
ALL = ("transfer", "stage", "verify", "activate", "check", "confirm", "prune")


def seen(board: Board | None = None, **changes: Any) -> Seen:
    board = board or Board("d")
    link = Link(board, spec_of(board), Fuse())
    return Seen(spec=link.spec, facts=link.facts(), installed=replace(link.installed(), **changes))


def silent(code: str, *, transient: bool) -> Seen:
    return Seen(spec=spec_of(Board("d")), fault=Failed(code=code, message="no"), transient=transient)


def test_an_empty_device_gets_everything() -> None:
    plan = plan_device(seen(), WISH)
    assert (plan.state, plan.steps, plan.bytes_to_send) == ("waiting", ALL, 1020)
    assert not isinstance(plan.duration_s, Absent) and plan.duration_s > 2


def test_what_is_there_is_not_sent_and_what_is_in_use_is_not_switched_to() -> None:
    assert plan_device(seen(releases=(NEW.id,)), WISH).bytes_to_send == 0
    assert plan_device(seen(current=NEW.id, releases=(NEW.id,)), WISH).steps == ("check", "confirm", "prune")
    there = plan_device(seen(current=NEW.id, confirmed=NEW.id, releases=(NEW.id,)), WISH)
    assert (there.state, there.steps) == ("unchanged", ())


@pytest.mark.parametrize("current", ["", OLD.id, NEW.id])
@pytest.mark.parametrize("confirmed", ["", OLD.id, NEW.id])
@pytest.mark.parametrize("keys", ["none", "own", "other"])
@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize("has_model", [True, False])
@pytest.mark.parametrize("signs", [True, False])
def test_a_glance_is_enough_only_where_nothing_is_to_be_done(
    current: str, confirmed: str, keys: str, leased: bool, has_model: bool, signs: bool
) -> None:
    own, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = own.public_key().public_bytes_raw()
    trusted = {"none": (), "own": (public.hex(),), "other": (other.public_key().public_bytes_raw().hex(),)}[keys]
    release = replace(NEW, signature=own.sign(NEW.manifest))
    release = release if has_model else replace(release, classes={})
    wish = replace(WISH, release=release, key=public if signs else b"")
    whole = seen(current=current, confirmed=confirmed, keys=trusted, releases=(NEW.id, OLD.id))
    assert whole.installed
    lease = {"lease_owner": "another", "lease_left_s": 9.0} if leased else {}
    plan = plan_device(replace(whole, installed=replace(whole.installed, **lease)), wish)
    glance = Glance(current=current, confirmed=confirmed, keys=trusted, leased=leased, boot_id="b")
    assert proved(whole.spec, glance, wish) == (plan.state == "unchanged")
    if plan.state == "unchanged":
        short = plan_device(Seen(spec=whole.spec, glance=glance), wish)
        assert (short.state, short.installed, short.note) == ("unchanged", plan.installed, plan.note)


def test_the_owners_programs_are_run_and_releases_compared_where_there_is_one_before() -> None:
    found = seen(current=OLD.id, confirmed=OLD.id, releases=(OLD.id,))
    spec = replace(found.spec, activate_hook=("/bin/restart",), health=("/bin/well",))
    plan = plan_device(replace(found, spec=spec), WISH, compare=True)
    assert plan.steps[3:8] == ("compare", "activate", "hook", "health", "check")
    assert found.facts
    emulated = replace(found, facts=replace(found.facts, emulated="qemu"))
    assert "compare" not in plan_device(emulated, WISH, compare=True).steps
    assert "compare" not in plan_device(seen(), WISH, compare=True).steps


@pytest.mark.parametrize(
    ("found", "state", "code"),
    [
        (silent("unreachable", transient=True), "pending", "unreachable"),
        (silent("host-key", transient=False), "failed", "host-key"),
        (seen(lease_owner="journal 2", lease_left_s=5.0), "pending", "leased"),
        (seen(lease_owner="journal 1", lease_left_s=5.0), "waiting", ""),
        (seen(lease_owner="journal 2", lease_left_s=0.0), "waiting", ""),
        (seen(free_disk_bytes=500_000), "failed", "disk-full"),
        (seen(floor={"net": 3}), "failed", "downgrade"),
        (seen(floor={"other": 3, "net": 2}), "waiting", ""),
        (seen(Board("d", device_class="phone")), "failed", "class"),
    ],
)  # fmt: skip
def test_who_is_left_out_and_why(found: Seen, state: str, code: str) -> None:
    plan = plan_device(found, WISH)
    assert (plan.state, plan.code) == (state, code)
    assert state == "waiting" or (plan.reason and not plan.steps)


def test_pinned_devices_and_unfit_ones() -> None:
    assert plan_device(seen(), replace(WISH, pinned={"d": OLD.id})).state == "pinned"
    assert plan_device(seen(), replace(WISH, pinned={"d": NEW.id})).state == "waiting"
    assert plan_device(seen(), WISH, fits=needs_avx).reason == "needs AVX"


def needs_avx(model: Model, facts: Facts) -> Failed:
    return Failed(code="fit", message="needs AVX", hint="buy another")


def test_a_device_that_is_off_is_judged_by_its_fact_sheet() -> None:
    off, facts = silent("unreachable", transient=True), seen().facts
    assert facts
    told = plan_device(off, replace(WISH, sheets={"d": facts}), fits=needs_avx)
    assert (told.state, told.code) == ("failed", "fit") and "by its fact sheet, needs AVX" in told.reason
    assert plan_device(off, replace(WISH, sheets={"e": facts}), fits=needs_avx).state == "pending"
    assert plan_device(off, replace(WISH, sheets={"d": facts})).state == "pending"


def test_who_trusts_whom() -> None:
    ours, theirs = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    keys = {who: who.public_key().public_bytes_raw() for who in (ours, theirs)}
    signed = replace(WISH, release=replace(NEW, signature=ours.sign(NEW.manifest)), key=keys[ours])
    first = plan_device(seen(), signed)
    assert first.steps == ("trust", *ALL) and "is to trust ed25519:" in first.note
    there = seen(current=NEW.id, confirmed=NEW.id, releases=(NEW.id,))
    assert plan_device(there, signed).steps == ("trust",), "also a device that has the release already"
    assert plan_device(seen(keys=(keys[ours].hex(),)), signed).steps == ALL
    for holder, wish in ((theirs, signed), (ours, WISH)):
        refused = plan_device(seen(keys=(keys[holder].hex(),)), wish)
        assert (refused.state, refused.code) == ("failed", "signature"), refused
    assert "takes unsigned releases" in plan_device(seen(), WISH).note
    assert "takes unsigned releases" in status_of("d", "default", known=known(), seen=seen()).note
    assert not plan_device(seen(keys=(keys[ours].hex(),)), signed).note


def test_a_fleets_plan_adds_up() -> None:
    plans = [plan_device(seen(Board(f"d{number}")), WISH) for number in range(20)]
    plan = plan_rollout(plans, NEW, POLICY)
    assert [len(wave) for wave in plan.waves] == [1, 1, 8, 10]
    assert plan.bytes_to_send == 20 * 1020
    one = plans[0].duration_s
    assert not isinstance(one, Absent)
    assert plan.duration_s == pytest.approx(4 * one + 3 * POLICY.soak_s)


def test_an_estimate_learns_from_the_device_then_from_its_class() -> None:
    def took(device: str, step: str, seconds: float, rate: float = 0.0) -> Took:
        return Took(device=device, step=step, seconds=seconds, bytes_per_s=rate)

    past = [
        *(took("d", "verify", seconds) for seconds in (30.0, 32.0, 31.0, 500.0, 29.0, 1.0, 1.0, 1.0)),
        took("d", "check", 4.0),
        took("d", "transfer", 10.0, 102.0),
        took("d", "transfer", 0.01),  # too short to tell
    ]
    wish = replace(WISH, pace=learned(past, {"d": "default", "e": "default"}))
    own, alike, other = (
        plan_device(replace(found, spec=replace(found.spec, device_class=kind)), replace(wish, release=release))
        for found, kind, release in (
            (seen(Board("d")), "default", NEW),
            (seen(Board("e")), "default", NEW),
            (seen(Board("f")), "tiny", replace(NEW, classes={"tiny": NEW.classes["default"]})),
        )
    )
    assert (own.basis, alike.basis, other.basis) == ("measured", "alike", "guess")
    assert own.duration_s == alike.duration_s == pytest.approx(1020 / 102 + 31 + 4 + 5 * STEP_S)
    assert other.duration_s == plan_device(seen(Board("f")), WISH).duration_s
    both = plan_rollout([own, alike], NEW, POLICY)
    assert both.basis == "alike" and both.golden_bytes == 2 * own.golden_bytes == 2 * 20


def known(**changes: Any) -> Known:
    base = Known(installed=OLD.id, pending="", seen=True, desired=OLD.id, pinned=False, why="push", since_s=5.0)
    return replace(base, **changes)


def part(
    state: Any, rollout: str = "done", kind: str = "push", reason: str = "", code: str = ""
) -> tuple[Rollout, Member]:
    absent = Absent(reason="not over")
    run = Rollout(
        id="r", kind=kind, release=NEW.id, name="net", state=rollout, reason=reason, policy=POLICY,
        allow_downgrade=False, owner="", began_s=1.0, ended_s=absent,
    )  # type: ignore[arg-type]  # fmt: skip
    member = replace(member_of(plan_device(seen(), WISH)), state=state, reason="because", hint="do", since_s=7.0)
    member = replace(member, code=code)
    return run, member


@pytest.mark.parametrize(
    ("arguments", "state", "reason"),
    [
        ({"known": None}, "unknown", "nothing was ever pushed"),
        ({"known": known()}, "current", "push"),
        ({"known": known(), "part": part("confirmed")}, "current", "answers"),
        ({"known": known(desired=NEW.id)}, "behind", "not what it is to have"),
        ({"known": known(desired=NEW.id), "part": part("pending")}, "pending", "because"),
        ({"known": known(), "part": part("failed")}, "refused", "because"),
        ({"known": known(), "part": part("reverted", kind="rollback")}, "current", "because"),
        ({"known": known(), "part": part("waiting", "stopped", reason="wave 1: no")}, "current", "stopped"),
        ({"known": known(), "part": part("waiting", "running")}, "in-rollout", "waits for its turn"),
        ({"known": known(), "part": part("pending", "running")}, "pending", "because"),
        ({"known": known(), "part": part("failed", kind="rollback", code=NOTHING_BEFORE)}, "current", "because"),
        ({"known": known(pending=NEW.id, installed=NEW.id)}, "unconfirmed", "not proved"),
        ({"known": known(pinned=True)}, "pinned", "kept there"),
        ({"known": known(pinned=True, installed="")}, "pinned", "does not have"),
        ({"known": known(), "seen": seen(current="", releases=())}, "behind", "not what it is to have"),
    ],
)  # fmt: skip
def test_where_a_device_is_and_why(arguments: dict[str, Any], state: str, reason: str) -> None:
    found = status_of("d", "default", **arguments)
    assert found.state == state and reason in found.reason


def test_the_device_is_right_and_the_difference_is_told() -> None:
    found = status_of("d", "default", known=known(), seen=seen(current=NEW.id, confirmed=NEW.id))
    assert (found.installed, found.differs, found.state) == (NEW.id, OLD.id, "behind")


def test_times_as_one_reads_them() -> None:
    assert [duration(value) for value in (0.2, 61, 600, 9000)] == ["1 s", "61 s", "10 min", "2.5 h"]
    assert [ago(value) for value in (-1, 59, 3599, 7200, 3e5)] == ["0 s", "59 s", "60 min", "2 h", "3 d"]
