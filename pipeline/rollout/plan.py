"""What is to be done. Pure: (facts, what is installed, release, policy) → steps, bytes and time, device by device."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from pipeline.quantities import size
from pipeline.release.keys import PublicKey
from pipeline.rollout.pace import USUAL_BYTES_PER_S, Basis, Pace
from pipeline.rollout.records import DevicePlan, Member, Policy, RolloutPlan, Seen, StepName
from pipeline.rollout.release import Model, Release
from pipeline.rollout.waves import foreseen
from targets.delivery import RESERVE_BYTES
from targets.glance import Glance
from targets.records import Absent, Facts, Failed, TargetSpec
from targets.releases import Installed

# Why a model cannot run on such a device; None when it can, or nobody knows.
Fits = Callable[[Model, Facts], Failed | None]

# Starting Python and a runtime on a small board; a benchmark adds the time that is given to samples.
BENCH_S = 2.0
STEP_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is wanted of all devices, and what is known of them beforehand."""

    release: Release
    policy: Policy
    allow_downgrade: bool = False
    owner: str = ""  # whose leases are ours
    pinned: Mapping[str, str] = field(default_factory=dict)  # device → the release it is to keep
    pace: Pace = field(default_factory=Pace)  # how long it took before
    sheets: Mapping[str, Facts] = field(default_factory=dict)  # device → what an earlier probe found
    key: bytes = b""  # the public key that has signed the release, for devices that trust none yet


def anything_fits(model: Model, facts: Facts) -> Failed | None:
    """The check where there is none: the model's own answers on the device decide."""
    return None


def plan_device(seen: Seen, wish: Wish, *, fits: Fits = anything_fits, compare: bool = False) -> DevicePlan:
    """The steps that bring one device to the release from where it is now."""
    spec, release = seen.spec, wish.release
    where = has.current if (has := seen.glance or seen.installed) else ""
    model = release.classes.get(spec.device_class)

    def found(state: str, reason: str = "", *, code: str = "", hint: str = "") -> DevicePlan:
        return DevicePlan(
            device=spec.name,
            device_class=spec.device_class,
            group=f"{spec.device_class} on {seen.facts.arch}" if seen.facts else spec.device_class,
            installed=where,
            state=state,  # type: ignore[arg-type]
            code=code,
            reason=reason,
            hint=hint,
            note=_note(seen, wish),
        )

    pinned = wish.pinned.get(spec.name, "")
    if pinned and pinned != release.id:
        return found("pinned", f"pinned to {pinned[:12]}", hint=f"deploy pin {spec.name} --remove")
    if seen.fault:
        sheet = wish.sheets.get(spec.name)
        if seen.transient and model and sheet and (unfit := fits(model, sheet)):
            told = f"by its fact sheet, {unfit.message}; it was not reached now"
            hint = f"{unfit.hint}; then deploy targets probe {spec.name}, and push again"
            return found("failed", told, code=unfit.code, hint=hint)
        state = "pending" if seen.transient else "failed"
        return found(state, seen.fault.message, code=seen.fault.code, hint=seen.fault.hint)
    if seen.glance:
        return found("unchanged", "has the release")
    assert seen.installed and seen.facts
    if model is None:
        known = ", ".join(sorted(release.classes))
        hint = f"set `class:` of target {spec.name}, or make the release for it; it has: {known}"
        return found("failed", f"the release has no model for class {spec.device_class!r}", code="class", hint=hint)
    if unfit := fits(model, seen.facts):
        return found("failed", unfit.message, code=unfit.code, hint=unfit.hint)
    if told := _mistrust(seen.installed.keys, release):
        hint = "push a release signed by a key it trusts; its owner revokes keys in the folder `trust` there"
        return found("failed", told, code="signature", hint=hint)
    holder = seen.installed.lease_owner
    if holder and holder != wish.owner and seen.installed.lease_left_s > 0:
        told = f"another controller has it: {holder}, for {seen.installed.lease_left_s:.0f} s more"
        return found("pending", told, code="leased", hint="deploy reconcile, later")
    proved = seen.installed.floor.get(release.name, 0)
    if release.sequence < proved and not wish.allow_downgrade and seen.installed.current != release.id:
        told = f"{release.name} {proved} has proved itself there, this is {release.sequence}"
        return found("failed", told, code="downgrade", hint="--allow-downgrade if you mean it, or deploy rollback")
    steps = steps_for(seen.installed, release.id, hook=bool(spec.activate_hook), health=bool(spec.health))
    if wish.key and not seen.installed.keys:
        steps = ("trust", *steps)
    if not steps:
        return found("unchanged", "has the release")
    compare = compare and "activate" in steps and not seen.facts.emulated and bool(wish.policy.compare_blocks)
    if not compare or not seen.installed.current:
        steps = tuple(step for step in steps if step != "compare")
    needed = 0 if release.id in seen.installed.releases or "transfer" not in steps else model.transfer_bytes
    if needed and needed + RESERVE_BYTES > seen.installed.free_disk_bytes:
        free = size(seen.installed.free_disk_bytes)
        hint = f"free space on {spec.name}, or set `root:` to a larger disk"
        return found("failed", f"needs {size(needed)}, {free} are free on it", code="disk-full", hint=hint)
    duration_s, basis = _duration(spec, steps, needed, len(model.golden), wish)
    plan = found("waiting")
    return DevicePlan(
        device=plan.device,
        device_class=plan.device_class,
        group=plan.group,
        installed=where,
        state="waiting",
        steps=steps,
        bytes_to_send=needed,
        golden_bytes=min(needed, model.golden_bytes),
        duration_s=duration_s,
        basis=basis,
        note=plan.note,
    )


def proved(spec: TargetSpec, glance: Glance, wish: Wish) -> bool:
    """Whether a glance shows that nothing is to be done: the release is in use there and has proved itself."""
    return (
        spec.device_class in wish.release.classes
        and glance.current == glance.confirmed == wish.release.id
        and not glance.leased
        and not (wish.key and not glance.keys)
        and not _mistrust(glance.keys, wish.release)
    )


def _mistrust(keys: Sequence[str], release: Release) -> str:
    """Why the device would refuse the signature; "" when it would not. It asks itself again, whatever is said here."""
    if not keys or any(PublicKey(bytes.fromhex(key)).signed(release.manifest, release.signature) for key in keys):
        return ""
    trusted = ", ".join(PublicKey(bytes.fromhex(key)).fingerprint for key in keys)
    return f"it trusts {trusted}, which has not signed this release" + ("" if release.signature else ": nobody has")


def _note(seen: Seen, wish: Wish) -> str:
    if seen.glance:
        return security_note(seen.glance.keys)
    if seen.installed is None:
        return ""
    if wish.key and not seen.installed.keys:
        return f"is to trust {PublicKey(wish.key).fingerprint}"
    return security_note(seen.installed.keys, seen.installed.note)


def security_note(keys: Sequence[str], note: str = "") -> str:
    """What a device does not do that one might rely on."""
    unsigned = "" if keys else "trusts no key: takes unsigned releases"
    return "; ".join(part for part in (unsigned, note) if part)


def steps_for(installed: Installed, release: str, *, hook: bool = False, health: bool = False) -> tuple[StepName, ...]:
    """The steps from what the device's disk says; none when the release is there, proved."""
    live: tuple[StepName, ...] = (*(("hook",) if hook else ()), *(("health",) if health else ()), "check")
    if installed.current == release:
        return (*live, "confirm", "prune") if installed.pending else ()
    return ("transfer", "stage", "verify", "compare", "activate", *live, "confirm", "prune")


def plan_rollout(devices: Sequence[DevicePlan], release: Release, policy: Policy) -> RolloutPlan:
    """All devices' plans together: the waves, and how long they take one after the other."""
    waves = foreseen([member_of(plan) for plan in devices], policy.waves)
    by_name = {plan.device: plan for plan in devices}
    duration_s = 0.0
    for number, wave in enumerate(waves):
        each = [by_name[name].duration_s for name in wave]
        longest = max((value for value in each if not isinstance(value, Absent)), default=0.0)
        duration_s += longest * ceil(len(wave) / policy.parallel) + policy.soak_s * (number < len(waves) - 1)
    return RolloutPlan(
        release=release.id,
        name=release.name,
        sequence=release.sequence,
        devices=tuple(devices),
        waves=waves,
        bytes_to_send=sum(plan.bytes_to_send for plan in devices),
        golden_bytes=sum(plan.golden_bytes for plan in devices),
        duration_s=duration_s,
        basis=_weakest(plan.basis for plan in devices if plan.steps),
    )


def member_of(plan: DevicePlan) -> Member:
    """A device's part in the rollout that begins with this plan."""
    return Member(
        device=plan.device,
        device_class=plan.device_class,
        group=plan.group,
        state=plan.state,
        installed=plan.installed,
        code=plan.code,
        reason=plan.reason,
        hint=plan.hint,
    )


def _duration(
    spec: TargetSpec, steps: Sequence[StepName], to_send: int, golden: int, wish: Wish
) -> tuple[float, Basis]:
    """How long the steps take, by what such steps took before, and what that rests on."""
    bench_s = BENCH_S + wish.policy.warm_s
    costs = {
        "verify": bench_s + BENCH_S * (golden - 1),
        "compare": 2 * wish.policy.compare_blocks * bench_s,
        "check": BENCH_S,
    }
    total_s, bases = 0.0, list[Basis]()
    for step in steps:
        if step == "transfer":
            rate, basis = wish.pace.of(spec.name, spec.device_class, step, USUAL_BYTES_PER_S)
            total_s += STEP_S + to_send / rate
        else:
            known_s, basis = wish.pace.of(spec.name, spec.device_class, step, STEP_S + costs.get(step, 0.0))
            total_s += known_s
        if step in costs or (step == "transfer" and to_send / rate > STEP_S):
            bases.append(basis)  # the others take next to no time
    return total_s, _weakest(bases)


def _weakest(bases: Iterable[Basis]) -> Basis:
    order: tuple[Basis, ...] = ("guess", "alike", "measured")
    return min(bases, key=order.index, default="guess")
