"""One device, from where it is to where it should be, and back when it does not answer there.

What is to be done next follows from what the device's disk says, so an attempt may end anywhere and the next one goes
on from there: a switch that has happened is not made again. Only why something was refused is the journal's to know.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from pipeline.release.keys import PublicKey
from pipeline.rollout.fleet import Interrupted, hint_for
from pipeline.rollout.journal import Journal
from pipeline.rollout.plan import Fits, Wish, anything_fits, plan_device, steps_for
from pipeline.rollout.records import Member, Rollout, Seen, StepName
from pipeline.rollout.release import Model, Release
from pipeline.rollout.verify import Blobs, Reached, Unhealthy, check, compare, verify
from targets.errors import DeployError, NotStaged
from targets.records import Facts
from targets.releases import Installed

# Longer than any step, so that it does not run out in the middle of one; a dead controller's own successor has the same
# name and need not wait for it.
LEASE_GRACE_S = 60.0
HOOK_S = 60.0  # to restart a service, or to say that it is well
_BEFORE: frozenset[StepName] = frozenset({"trust", "transfer", "stage", "verify", "compare", "activate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What every device's run uses."""

    journal: Journal
    blobs: Blobs
    stopping: Callable[[], bool]  # begin nothing more before a switch
    guard: Callable[[str], None]  # called when a device's switch begins, which is not interrupted
    said: Callable[[Member, str], None]  # (member, step) for whoever watches
    noted: Callable[[str], None]
    lend: Callable[[str], None]
    fits: Fits = anything_fits
    key: bytes = b""  # the public key that has signed the release


@dataclass(slots=True, kw_only=True)
class DeviceRun:
    """One device's part in a rollout; every method is one attempt over one connection."""

    tools: Tools
    rollout: Rollout
    release: Release | None  # None: a rollback, each device has its own
    member: Member
    compare: bool = False
    facts: Facts | None = None
    switching: bool = False  # whether something other than the release before may be in use there

    def forward(self, device: Reached) -> Member:
        """Bring the release onto the device. Raises transient errors, after which another attempt may follow."""
        assert self.release
        if self.member.state == "reverting":
            return self.back(device)
        installed = self._look(device)
        self.facts = self.facts or device.facts()
        policy, older = self.rollout.policy, self.rollout.allow_downgrade
        wish = Wish(release=self.release, policy=policy, allow_downgrade=older, owner=self._owner, key=self.tools.key)
        seen = Seen(spec=device.spec, facts=self.facts, installed=installed)
        plan = plan_device(seen, wish, fits=self.tools.fits, compare=self.compare)
        if plan.state == "unchanged":  # an attempt before this one came to its end without hearing of it
            return self._put("confirmed", boot_id=installed.boot_id)
        if plan.state != "waiting":
            return self._put(plan.state, code=plan.code, reason=plan.reason, hint=plan.hint)
        if installed.current == self.release.id:
            self._switch()
        else:
            self._put("active", installed=installed.current)
        with self._leased(device):
            try:
                for step in plan.steps:
                    if step == "prune":
                        break
                    self._take(device, step, installed)
            except DeployError as fault:
                if fault.transient or device.over:
                    raise
                if installed.current == self.release.id and not installed.pending:  # it was proved before this rollout
                    return self._put("failed", code=fault.code, reason=_told(fault, device), hint=hint_for(fault))
                return self._refused(device, fault)
            found = self._put("confirmed", boot_id=installed.boot_id, desired=self.release.id)
            with suppress(DeployError):  # its step says why; the release is in use, and room is made next time
                self._take(device, "prune", installed)
        return found

    def back(self, device: Reached) -> Member:
        """Bring the device back to what it had before, and see that this answers."""
        installed, to = self._look(device), self.member.installed
        self._switch()
        with self._leased(device):
            before = self._model(to, device)
            if self.rollout.kind == "rollback" and before and installed.current != to:
                try:
                    with self._step("verify", to):
                        verify(device, before, self.tools.blobs, self.rollout.policy.warm_s)
                except DeployError as fault:
                    if fault.transient or device.over:
                        raise
                    why = f"stays where it is, the other release was refused: {_told(fault, device)}"
                    return self._put("failed", code=fault.code, reason=why, hint=hint_for(fault))
            try:
                if installed.current != to:
                    with self._step("revert", to):
                        self._switch_back(device, installed, to)
                        self.tools.journal.seen(device.spec.name, device.spec.device_class, to, "")
                    self._hook(device, to)
                told = self._still_answers(device, to, before)
                if to and installed.confirmed != to:
                    with self._step("confirm", to):
                        device.releases.confirm(to)
            except DeployError as fault:
                if fault.transient or device.over:
                    raise
                why = f"{self.member.reason}; going back failed: {_told(fault, device)}"
                return self._put("reverted", code=fault.code, reason=why.lstrip("; "), hint=hint_for(fault))
        code = self.member.code or self.rollout.kind
        return self._put("reverted", code=code, reason=_joined(self.member.reason, told), desired=to)

    def again(self, device: Reached) -> Member:
        """After the soak time: the device is still what it was, and still answers."""
        assert self.release
        installed = self._look(device)
        self._switch()
        with self._leased(device):
            try:
                if installed.current != self.release.id:
                    has = installed.current[:12] or "no release"
                    return self._put("failed", code="left", reason=f"has {has} now, which was not our doing")
                if installed.boot_id != self.member.boot_id:
                    hint = f"look at the journal of {device.spec.name} itself: why did it restart?"
                    raise Unhealthy(f"{device.spec.name}: has restarted during the soak time", hint=hint)
                for step in steps_for(
                    replace(installed, confirmed=""), self.release.id, health=bool(device.spec.health)
                ):
                    if step in ("health", "check"):
                        self._take(device, step, installed)
            except DeployError as fault:
                if fault.transient or device.over:
                    raise
                return self._refused(device, fault)
        return self.member

    # --- steps ---

    def _take(self, device: Reached, step: StepName, installed: Installed) -> None:
        if step in _BEFORE and self.tools.stopping():
            raise Interrupted
        assert self.release
        model, releases, policy = self.release.classes[device.spec.device_class], device.releases, self.rollout.policy
        if step == "activate":
            self._switch()
        with self._step(step, self.release.id) as detail:
            if step == "trust":
                releases.trust(self.tools.key)
                detail |= {"key": self.tools.key.hex()}
                self.tools.noted(f"{device.spec.name}: trusts {PublicKey(self.tools.key).fingerprint} from now on")
            elif step == "transfer":
                sent = releases.transfer(self._files(model), self._bases(installed, device))
                detail |= {"bytes_on_wire": sent.bytes_on_wire, "files": sent.files_sent, "deltas": sent.delta_files}
                self.member = replace(self.member, bytes_on_wire=self.member.bytes_on_wire + sent.bytes_on_wire)
            elif step == "stage":
                releases.stage(self.release.manifest, self.release.signature, device.spec.device_class)
            elif step == "verify":
                measured = verify(device, model, self.tools.blobs, policy.warm_s)
                detail |= {"max_steps": measured.answer.max_steps, "runtime": measured.runtime_version}
            elif step == "compare":
                if before := self._model(installed.current, device):
                    pairs = compare(device, before, model, self.tools.blobs, policy.compare_blocks, policy.warm_s)
                    self.member = replace(self.member, pairs=pairs)
            elif step == "activate":
                releases.lease(self._owner, self._lease_s(device))
                releases.activate(self.release.id, allow_downgrade=self.rollout.allow_downgrade)
                self.tools.journal.seen(device.spec.name, device.spec.device_class, self.release.id, self.release.id)
            elif step == "hook":
                self._run(device, device.spec.activate_hook, "the hook")
            elif step == "health":
                self._run(device, device.spec.health, "the health command")
            elif step == "check":
                detail |= {"max_steps": check(device, model, self.tools.blobs).answer.max_steps}
            elif step == "confirm":
                releases.confirm(self.release.id)
                self.tools.journal.seen(device.spec.name, device.spec.device_class, self.release.id, "")
            elif step == "prune":
                detail |= {"bytes_freed": releases.prune(policy.keep)}

    def _refused(self, device: Reached, fault: DeployError) -> Member:
        """The device does not take the release: written down first, then undone, if there is anything to undo."""
        why = _told(fault, device)
        # What the activation came to is for the device to say, whatever this attempt has heard of it.
        assert self.release
        if self._look(device).current != self.release.id:
            return self._put("failed", code=fault.code, reason=why, hint=hint_for(fault), desired=self.member.installed)
        self._put("reverting", code=fault.code, reason=why, hint=hint_for(fault), desired=self.member.installed)
        return self.back(device)

    def _switch_back(self, device: Reached, installed: Installed, to: str) -> None:
        if not to or to in (installed.previous, installed.confirmed):
            device.releases.revert(to)
        elif to in installed.releases:
            device.releases.activate(to, allow_downgrade=True)
        else:
            hint = "deploy push --release FILE of another release"
            raise NotStaged(f"{device.spec.name}: release {to[:12]} is no longer there", hint=hint)

    def _still_answers(self, device: Reached, to: str, model: Model | None) -> str:
        """See that what the device has gone back to works; what there is to say of it."""
        if not to:
            return "it has no release now"
        known = self.tools.journal.release(to)
        if model is None or known is None:
            return f"back on {to[:12]}, which this journal does not know and so could not verify"
        with self._step("check-previous", to):
            check(device, model, self.tools.blobs)
        return f"back on {known.name} {known.sequence}, which answers"

    def _hook(self, device: Reached, release: str) -> None:
        if device.spec.activate_hook and release:
            with self._step("hook", release):
                self._run(device, device.spec.activate_hook, "the hook")

    def _run(self, device: Reached, argv: tuple[str, ...], what: str) -> None:
        done = device.releases.hook(argv, HOOK_S)
        if done.exit_code:
            last = (done.output.strip().splitlines() or ["it said nothing"])[-1]
            raise Unhealthy(
                f"{device.spec.name}: {what} ended with {done.exit_code}: {last}",
                hint=f"run it there: {' '.join(argv)}",
            )

    # --- what the steps share ---

    @property
    def _owner(self) -> str:
        # Not the process's: whoever goes on with this journal after a crash is the same owner to the device.
        return f"journal {self.tools.journal.id}"

    def _lease_s(self, device: Reached) -> float:
        return device.spec.step_timeout_s + LEASE_GRACE_S

    @contextmanager
    def _leased(self, device: Reached) -> Iterator[None]:
        device.releases.lease(self._owner, self._lease_s(device))
        try:
            yield
        finally:
            if not device.over:
                with suppress(DeployError):  # it runs out by itself
                    device.releases.release_lease(self._owner)

    @contextmanager
    def _step(self, step: StepName, release: str) -> Iterator[dict[str, Any]]:
        self.tools.said(self.member, step)
        with self.tools.journal.step(self.rollout.id, self.member.device, step, release) as detail:
            yield detail

    def _look(self, device: Reached) -> Installed:
        installed = device.releases.installed()
        spec = device.spec
        self.tools.journal.seen(spec.name, spec.device_class, installed.current, installed.pending)
        return installed

    def _switch(self) -> None:
        """From here on the device is not left alone half-way."""
        self.switching = True
        self.tools.guard(self.member.device)

    def _put(self, state: Any, *, desired: str | None = None, **changes: Any) -> Member:
        settled = {"code": "", "reason": "", "hint": ""} if state in ("confirmed", "unchanged") else {}
        member = replace(self.member, state=state, **{**settled, **changes})
        self.member = self.tools.journal.put(self.rollout.id, member, desired=desired)
        self.tools.said(self.member, "")
        return self.member

    def _model(self, release: str, device: Reached) -> Model | None:
        """The model of a release that this journal knows; its samples are sent again if they are gone."""
        known = self.tools.journal.release(release) if release else None
        model = known.classes.get(device.spec.device_class) if known else None
        if model is None:
            return None
        self.tools.lend(release)
        files = {}
        for digest in model.digests:
            with suppress(KeyError):
                files[digest] = self.tools.blobs(digest)
        if files:
            device.releases.transfer(files)
        return model

    def _files(self, model: Model) -> dict[str, Any]:
        return {digest: self.tools.blobs(digest) for digest in model.digests}

    def _bases(self, installed: Installed, device: Reached) -> dict[str, Any]:
        """The host's copies of what the device has now: a new version of a model is sent as the difference to it."""
        known = self.tools.journal.release(installed.current) if installed.current else None
        model = known.classes.get(device.spec.device_class) if known else None
        found = {}
        if model is not None:
            with suppress(KeyError):
                found[model.blob] = self.tools.blobs(model.blob)
        return found


def _told(fault: DeployError, device: Reached) -> str:
    """One line, without the device's name, which stands beside it."""
    return fault.message.removeprefix(f"{device.spec.name}: ").strip().splitlines()[0]


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
