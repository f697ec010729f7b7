"""What `deploy rollback`, `reconcile` and `status` do, on top of an engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pipeline.errors import UsageError
from pipeline.rollout.engine import Engine
from pipeline.rollout.plan import Wish, member_of, plan_device, plan_rollout
from pipeline.rollout.records import NOTHING_BEFORE, Member, Policy, Result, Rollout, Seen, WaveSize
from pipeline.rollout.release import Release
from pipeline.rollout.status import Status, known_of, status_of

# Opens the bundle of a release again; None when it is not kept here any more.
Reopen = Callable[[str], Release | None]


def rollback(engine: Engine, names: Sequence[str], policy: Policy, to: str = "") -> Result:
    """Bring devices back to the release before the one they have, or to the one that is asked for."""
    for left in engine.journal.rollouts("running"):
        if left.kind == "rollback" and {member.device for member in engine.journal.members(left.id)} & set(names):
            return engine.go_on(engine.journal.take_over(left.id), None)
    seen, parts = engine.look(names), engine.journal.last_parts(names)
    known = engine.journal.known()
    members = []
    for name in names:
        spec, found = engine.fleet.specs[name], seen[name]
        base = Member(device=name, device_class=spec.device_class, group=spec.device_class, state="reverting", wave=1)
        before = parts[name][1].installed if name in parts else ""
        if name in known and known[name].pinned:
            members.append(replace(base, state="pinned", wave=0, code="pinned", reason="pinned"))
        elif found.installed is None:
            members.append(_unseen(base, found, to or before))
            engine.journal.desire({name: spec.device_class}, to or before, "deploy rollback")
        else:
            has = found.installed
            target = to or (has.confirmed if has.pending else has.previous)
            if not to and name in parts and _went_back(parts[name], has.current):
                hint = "deploy rollback --to ID, or deploy push"
                gone = replace(
                    base, state="unchanged", wave=0, installed=has.current, reason="was brought back already"
                )
                members.append(replace(gone, hint=hint))
            elif target == has.current:
                members.append(replace(base, state="unchanged", wave=0, installed=target, reason="has it already"))
            elif not target and not has.pending:
                reason = "there is no release before the one it has"
                members.append(
                    replace(base, state="failed", wave=0, code=NOTHING_BEFORE, reason=reason, hint="deploy push")
                )
            else:
                members.append(replace(base, installed=target, reason="deploy rollback"))
    if any(member.state == "reverting" for member in members):
        # Of several devices some may have nothing to go back to; that is a failure only if it is so of all.
        members = [replace(m, state="unchanged") if m.code == NOTHING_BEFORE else m for m in members]
    return engine.go_back(members, policy)


def _went_back(part: tuple[Rollout, Member], current: str) -> bool:
    """Whether its last rollout was a rollback to where it is: the same command again is not one step further."""
    return part[0].kind == "rollback" and part[1].state == "reverted" and part[1].installed == current


def _unseen(base: Member, found: Seen, to: str) -> Member:
    assert found.fault
    fault = found.fault
    gone = replace(base, wave=0, installed=to, code=fault.code, reason=fault.message, hint=fault.hint)
    return replace(gone, state="pending" if found.transient else "failed")


def reconcile(engine: Engine, names: Sequence[str], policy: Policy, reopen: Reopen) -> tuple[Result, ...]:
    """Finish what a dead controller has left, then bring each device to what it is to have.

    A device that refused a release is not asked again: what it is to have has been what it had since then.
    """
    results = [result for rollout in _left(engine) if (result := _finish(engine, rollout, reopen))]
    known, parts = engine.journal.known(), engine.journal.last_parts(names)
    lost = {name for name, (_, member) in parts.items() if member.state == "lost"}
    asked = [name for name in names if name in known and (known[name].desired or known[name].pending or name in lost)]
    seen = engine.look(asked)
    drifted: dict[str, list[Seen]] = {}
    for name in asked:
        has, desired = seen[name].installed, known[name].desired
        if has and (has.current != desired or has.pending):
            drifted.setdefault(desired, []).append(seen[name])
    now = replace(policy, waves=(WaveSize(share=1.0),), soak_s=0.0)
    for desired, found in drifted.items():
        back = [one for one in found if one.installed and _is_way_back(one, desired)]
        if back:
            results.append(engine.go_back([_going_back(one, desired) for one in back], now))
        if forward := [one for one in found if one not in back]:
            results.append(_bring(engine, forward, desired, now, reopen))
    return tuple(results)


def _left(engine: Engine) -> list[str]:
    return [rollout.id for rollout in reversed(engine.journal.rollouts("running", "undoing"))]


def _finish(engine: Engine, rollout: str, reopen: Reopen) -> Result | None:
    try:
        mine = engine.journal.take_over(rollout)
    except UsageError as fault:  # its controller lives
        engine.watching.noted(fault.message)
        return None
    engine.watching.noted(f"going on with rollout {rollout}")
    return engine.go_on(mine, _release(reopen, mine.release) if mine.release else None)


def _is_way_back(seen: Seen, desired: str) -> bool:
    has = seen.installed
    return bool(has and has.current != desired and desired in ("", has.previous, has.confirmed))


def _going_back(seen: Seen, desired: str) -> Member:
    spec = seen.spec
    return Member(
        device=spec.name,
        device_class=spec.device_class,
        group=spec.device_class,
        state="reverting",
        wave=1,
        installed=desired,
        reason="not what it is to have",
    )


def _bring(engine: Engine, seen: Sequence[Seen], desired: str, policy: Policy, reopen: Reopen) -> Result:
    release = _release(reopen, desired)
    wish = Wish(release=release, policy=policy, owner=f"journal {engine.journal.id}", key=engine.signed_by(release))
    plans = [plan_device(one, wish, fits=engine.fits) for one in seen]
    plan = plan_rollout(plans, release, policy)
    engine.watching.planned(plan)
    rollout = engine.journal.begin("reconcile", release, policy, [member_of(device) for device in plan.devices])
    return engine.go_on(rollout, release)


def _release(reopen: Reopen, digest: str) -> Release:
    release = reopen(digest)
    if release is None:
        hint = "run this where it was pushed from, or push the bundle again: deploy push --release FILE"
        raise UsageError(f"the bundle of release {digest[:12]} is not kept here", hint=hint)
    return release


def status(engine: Engine, names: Sequence[str], *, ask: bool) -> tuple[Status, ...]:
    """Where each device is and why; `ask` the devices, or believe the journal."""
    known = engine.journal.known()
    seen: Mapping[str, Seen] = engine.look(names) if ask else {}
    parts = engine.journal.last_parts(names)
    return tuple(
        status_of(
            name,
            engine.fleet.specs[name].device_class,
            known=known_of(known[name]) if name in known else None,
            part=parts.get(name),
            seen=seen.get(name),
        )
        for name in names
    )
