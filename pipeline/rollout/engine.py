"""A rollout from wave to wave. All that it goes by is in the journal, so it can be ended anywhere and gone on with."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.errors import UsageError
from pipeline.rollout.device_run import DeviceRun, Tools
from pipeline.rollout.fleet import Enough, Fleet, Interrupted, hint_for
from pipeline.rollout.gates import judge, spent
from pipeline.rollout.journal import BEAT_S, Journal
from pipeline.rollout.pace import learned
from pipeline.rollout.plan import Fits, Wish, anything_fits, member_of, plan_device, plan_rollout, proved
from pipeline.rollout.records import (
    GOOD,
    UNFINISHED,
    Difference,
    Member,
    Policy,
    Result,
    Rollout,
    RolloutPlan,
    Seen,
    Wave,
)
from pipeline.rollout.release import Release
from pipeline.rollout.verify import Blobs
from pipeline.rollout.waves import next_wave
from targets.errors import DeployError
from targets.records import Facts


class Watching(Protocol):
    """Whoever shows what happens; called from many threads."""

    def planned(self, plan: RolloutPlan) -> None: ...
    def changed(self, member: Member, step: str) -> None:
        """A device has begun a step, or with "" has come to a state."""

    def wave(self, number: int, devices: Sequence[str]) -> None: ...
    def judged(self, wave: Wave) -> None: ...
    def noted(self, text: str) -> None: ...


@dataclass(slots=True, kw_only=True)
class Engine:
    """What one command does with a fleet."""

    journal: Journal
    fleet: Fleet
    blobs: Blobs
    watching: Watching
    fits: Fits = anything_fits
    lend: Callable[[str], None] = lambda release: None  # make an older release's files be among `blobs`
    sheets: Mapping[str, Facts] = field(default_factory=dict)  # of earlier probes, by device
    signed_by: Callable[[Release], bytes] = lambda release: b""  # the public key, where signatures are asked for
    differences: list[Difference] = field(default_factory=list)
    _seen: dict[str, Seen] = field(default_factory=dict)
    _beaten: float = 0.0

    def look(self, names: Sequence[str], enough: Enough | None = None) -> Mapping[str, Seen]:
        """Ask the devices, and note where the journal was wrong."""
        known = self.journal.known()
        found = self.fleet.look(names, enough)
        for name, seen in found.items():
            has = seen.glance or seen.installed
            if has is None:
                continue
            row = known.get(name)
            if row is not None and row.seen_s is not None and row.installed != has.current:
                self.differences.append(Difference(device=name, journal=row.installed, found=has.current))
            self.journal.seen(name, seen.spec.device_class, has.current, has.pending)
        self._seen |= found
        return found

    def plan(
        self, release: Release, policy: Policy, names: Sequence[str], *, allow_downgrade: bool = False
    ) -> RolloutPlan:
        """What `push` would do now."""
        pinned = {name: row.desired for name, row in self.journal.known().items() if row.pinned}
        owner = f"journal {self.journal.id}"
        classes = {name: spec.device_class for name, spec in self.fleet.specs.items()}
        wish = Wish(
            release=release,
            policy=policy,
            allow_downgrade=allow_downgrade,
            owner=owner,
            pinned=pinned,
            pace=learned(self.journal.past(), classes),
            sheets=self.sheets,
            key=self.signed_by(release),
        )
        seen = self.look(names, lambda spec, glance: proved(spec, glance, wish))
        plans = [plan_device(seen[name], wish, fits=self.fits, compare=True) for name in names]
        return plan_rollout(plans, release, policy)

    def push(self, plan: RolloutPlan, release: Release, policy: Policy, *, allow_downgrade: bool = False) -> Result:
        """Carry out a plan; raises KeyboardInterrupt with the journal in order."""
        members = [member_of(device) for device in plan.devices]
        rollout = self.journal.begin("push", release, policy, members, allow_downgrade=allow_downgrade)
        there = {member.device: member.device_class for member in members if member.state == "unchanged"}
        self.journal.desire(there, release.id, "has it already")
        return self.go_on(rollout, release)

    def go_back(self, members: Sequence[Member], policy: Policy) -> Result:
        """Bring each of these devices to the release that it is to have, of those that are still on it, all at once."""
        return self.go_on(self.journal.begin("rollback", None, policy, members), None)

    def go_on(self, rollout: Rollout, release: Release | None) -> Result:
        """Work on a rollout until it is over, from wherever it is."""
        try:
            while not self._turn(rollout, release):
                pass
        except KeyboardInterrupt:
            self.journal.let_go(rollout.id)
            raise
        return self.result(rollout.id)

    def result(self, rollout: str) -> Result:
        found = next(one for one in self.journal.rollouts() if one.id == rollout)
        return Result(
            rollout=found.id,
            kind=found.kind,
            release=found.release,
            name=found.name,
            state=found.state,
            reason=found.reason,
            members=self.journal.members(rollout),
            waves=self.journal.waves(rollout),
            differences=tuple(self.differences),
        )

    # --- one turn ---

    def _turn(self, rollout: Rollout, release: Release | None) -> bool:
        """Do the one thing that is next; whether that was the last."""
        members, policy = self.journal.members(rollout.id), rollout.policy
        number = max((member.wave for member in members), default=0)
        wave = [member for member in members if member.wave == number and number]
        state = next(one.state for one in self.journal.rollouts() if one.id == rollout.id)
        if unfinished := [member for member in members if member.state in UNFINISHED]:
            self._work(rollout, release, unfinished, wave)
            return False
        if state == "undoing":
            return self._undo(rollout, members, number)
        if rollout.kind != "rollback":
            if number and number not in {one.number for one in self.journal.waves(rollout.id)}:
                self._judge(rollout, release, members, wave, number)
                return False
            if batch := next_wave(members, policy.waves):
                self.watching.wave(number + 1, batch)
                self.journal.start_wave(rollout.id, batch, number + 1)
                return False
            # They were not there; the release is proved elsewhere, so they are to have it when they are seen.
            late = {one.device: one.device_class for one in members if one.state in ("pending", "lost")}
            self.journal.desire(late, rollout.release, f"rollout {rollout.id}")
        self.journal.turn_to(rollout.id, "done")
        return True

    def _judge(
        self, rollout: Rollout, release: Release | None, members: Sequence[Member], wave: Sequence[Member], number: int
    ) -> None:
        policy = rollout.policy
        verdict = judge(wave, members, policy)
        if verdict.passed and policy.soak_s and next_wave(members, policy.waves):
            self.watching.noted(f"wave {number}: {policy.soak_s:g} s of soak time")
            self._soak(rollout, policy.soak_s)
            good = [member for member in wave if member.state in GOOD]
            self._work(rollout, release, good, wave, soaked=True)
            members = self.journal.members(rollout.id)
            if any(member.state in UNFINISHED for member in members):
                return  # it goes back first
            wave = [member for member in members if member.wave == number]
            verdict = judge(wave, members, policy)
        self.journal.judged(rollout.id, number, verdict)
        names = tuple(member.device for member in wave)
        self.watching.judged(Wave(number=number, devices=names, verdict=verdict))

    def _undo(self, rollout: Rollout, members: Sequence[Member], number: int) -> bool:
        """After a gate: take back what the policy says, then the rollout is over."""
        policy, reason = rollout.policy, next(one for one in self.journal.rollouts() if one.id == rollout.id).reason
        scope = {"stop": set(), "rollback-wave": {number}, "rollback-all": set(range(1, number + 1))}
        again = [m for m in members if m.state == "confirmed" and m.wave in scope[policy.on_failure]]
        for member in again:
            undone = replace(member, state="reverting", code=policy.on_failure, reason=reason)
            self.journal.put(rollout.id, undone, desired=member.installed)
        if not again:
            self.journal.turn_to(rollout.id, "stopped", reason)
        return not again

    # --- devices ---

    def _work(
        self,
        rollout: Rollout,
        release: Release | None,
        members: Sequence[Member],
        wave: Sequence[Member],
        *,
        soaked: bool = False,
    ) -> None:
        """One attempt after the other on each of these devices of a wave, all at the same time."""
        states = {member.device: member for member in (*wave, *members)}
        lock, halt = threading.Lock(), threading.Event()
        compared = _compared(members, rollout.policy.compare_devices)

        def stopping() -> bool:
            return self.fleet.stop.is_set() or halt.is_set()

        tools = Tools(
            journal=self.journal,
            blobs=self.blobs,
            stopping=stopping,
            guard=lambda name: self.fleet.guard(name, on=True),
            said=self.watching.changed,
            noted=self.watching.noted,
            lend=self.lend,
            fits=self.fits,
            key=self.signed_by(release) if release else b"",
        )

        def one(name: str) -> Member:
            seen = self._seen.get(name)
            run = DeviceRun(
                tools=tools,
                rollout=rollout,
                release=release,
                member=states[name],
                compare=name in compared,
                facts=seen.facts if seen else None,
            )
            try:
                found = self._attempts(run, soaked=soaked, halted=halt.is_set())
            finally:
                self.fleet.guard(name, on=False)
            with lock:
                states[name] = found
                if not soaked and spent(list(states.values()), rollout.policy):
                    halt.set()
            return found

        self.fleet.each([member.device for member in members], one, meanwhile=lambda: self._beat(rollout))

    def _attempts(self, run: DeviceRun, *, soaked: bool, halted: bool) -> Member:
        name, policy = run.member.device, run.rollout.policy
        spec = self.fleet.specs.get(name)
        if spec is None:
            return self._ended(run, "failed", "no-target", "is no target any more", "add it to deploy.yaml again")
        work = run.again if soaked else run.back if run.release is None else run.forward
        try:
            if halted and run.member.state == "active" and not run.switching:
                raise Interrupted
            return self.fleet.attempt(spec, work, retries=policy.retries)
        except Interrupted:
            if run.member.state == "active" and not run.switching:
                waiting = replace(run.member, state="waiting", wave=0)
                self.watching.changed(self.journal.put(run.rollout.id, waiting), "")
            raise
        except DeployError as fault:
            why = fault.message.removeprefix(f"{name}: ").strip().splitlines()[0]
            if run.switching or soaked or run.member.state == "reverting":
                return self._ended(run, "lost", fault.code, f"no contact since the switch: {why}", hint_for(fault))
            return self._ended(run, "pending" if fault.transient else "failed", fault.code, why, hint_for(fault))

    def _ended(self, run: DeviceRun, state: str, code: str, reason: str, hint: str) -> Member:
        ended = replace(run.member, state=state, code=code, reason=reason, hint=hint)  # type: ignore[arg-type]
        ended = self.journal.put(run.rollout.id, ended)
        self.watching.changed(ended, "")
        return ended

    def _soak(self, rollout: Rollout, duration_s: float) -> None:
        end = time.monotonic() + duration_s
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, BEAT_S))
            self._beat(rollout)

    def _beat(self, rollout: Rollout) -> None:
        if time.monotonic() - self._beaten > BEAT_S:
            self._beaten = time.monotonic()
            self.journal.beat(rollout.id)


def _compared(members: Sequence[Member], most: int) -> frozenset[str]:
    """The first devices of each group, on which the new release is compared with the one before."""
    groups: dict[str, list[str]] = {}
    for member in members:
        groups.setdefault(member.group, []).append(member.device)
    return frozenset(name for names in groups.values() for name in names[:most])


def refuse_empty(names: Sequence[str]) -> None:
    """Raise UsageError when no device was chosen."""
    if not names:
        raise UsageError("no device was chosen", hint="deploy targets list shows them")
