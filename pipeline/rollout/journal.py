"""The journal: what was meant to be done, what was begun, and how it ended.

A step is written before it is taken and its outcome after, so that a controller that was killed knows where it was. The
device is still asked: what it says is the truth, the journal only knows why.
"""

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, insert, select, update

from pipeline import codec
from pipeline.errors import UsageError
from pipeline.rollout import tables as t
from pipeline.rollout.controllers import lives, this_controller, who
from pipeline.rollout.pace import Took
from pipeline.rollout.records import (
    GateVerdict,
    Member,
    Policy,
    Rollout,
    RolloutKind,
    RolloutState,
    StepName,
    Wave,
)
from pipeline.rollout.release import Release, read_release
from pipeline.rollout.rows import member_of_row, rollout_of_row, row_of
from targets.errors import DeployError
from targets.records import Absent

# A controller says that often that it lives; one on another host is taken for dead after the second.
BEAT_S = 10.0
OWNED_S = 60.0
# What is learned from for a plan: some 2 pushes to 100 devices; reading it takes a few hundredths of a second.
_PAST_STEPS = 2000


class Journal:
    """One journal; safe to use from many threads."""

    def __init__(self, database: t.Database) -> None:
        self._db = database
        self.shown = database.shown
        with database.read() as connection:
            self.id = str(connection.scalar(select(t.facts.c.value).where(t.facts.c.key == "id")))

    def close(self) -> None:
        self._db.close()

    # --- releases ---

    def remember(self, release: Release, bundle: Path) -> None:
        """Keep what is needed to verify this release on a device in a year."""
        known = self.release(release.id)
        with self._db.write() as connection:
            if known is None:
                row = {"id": release.id, "name": release.name, "sequence": release.sequence, "seen_s": time.time()}
                blobs = {"manifest": release.manifest, "signature": release.signature, "bundle": str(bundle)}
                connection.execute(insert(t.releases).values(**row, **blobs))
            else:
                where = t.releases.c.id == release.id
                connection.execute(update(t.releases).where(where).values(bundle=str(bundle)))

    def release(self, digest: str) -> Release | None:
        """A release that was pushed from here once."""
        with self._db.read() as connection:
            row = connection.execute(select(t.releases).where(t.releases.c.id == digest)).one_or_none()
        return read_release(row.manifest, row.signature) if row else None

    def bundle(self, digest: str) -> Path | None:
        """Where the bundle of a release was kept."""
        with self._db.read() as connection:
            found = connection.scalar(select(t.releases.c.bundle).where(t.releases.c.id == digest))
        return Path(found) if found else None

    def find(self, words: str) -> tuple[str, ...]:
        """The releases whose id begins with these hex digits."""
        with self._db.read() as connection:
            rows = connection.execute(select(t.releases.c.id).where(t.releases.c.id.startswith(words, autoescape=True)))
            return tuple(row.id for row in rows)

    def names(self) -> dict[str, str]:
        """Every known release: id → name and sequence, as one reads it."""
        with self._db.read() as connection:
            rows = connection.execute(select(t.releases.c.id, t.releases.c.name, t.releases.c.sequence)).all()
        return {row.id: f"{row.name} {row.sequence}" for row in rows}

    # --- rollouts ---

    def begin(
        self,
        kind: RolloutKind,
        release: Release | None,
        policy: Policy,
        devices: Sequence[Member],
        *,
        allow_downgrade: bool = False,
    ) -> Rollout:
        """Write a rollout down with all its devices, as this controller's own.

        Raises UsageError when another one has one of these devices and a controller that lives; one without is over
        now, because two could not both be gone on with.
        """
        rollout = Rollout(
            id=time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(3),
            kind=kind,
            release=release.id if release else "",
            name=release.name if release else "",
            state="running",
            reason="",
            policy=policy,
            allow_downgrade=allow_downgrade,
            owner=this_controller(),
            began_s=time.time(),
            ended_s=Absent(reason="not over"),
        )
        with self._db.write() as connection:
            self._refuse_busy(connection, [member.device for member in devices])
            connection.execute(
                insert(t.rollouts).values(
                    id=rollout.id,
                    kind=kind,
                    release=rollout.release or None,
                    name=rollout.name,
                    state="running",
                    reason="",
                    policy=codec.encode(policy).decode(),
                    allow_downgrade=allow_downgrade,
                    owner=rollout.owner,
                    owner_until_s=time.time() + OWNED_S,
                    began_s=rollout.began_s,
                )
            )
            rows = [
                {**row_of(replace(member, since_s=time.time())), "rollout": rollout.id, "place": place}
                for place, member in enumerate(devices)
            ]
            if rows:
                connection.execute(insert(t.members), rows)
        return rollout

    def _refuse_busy(self, connection: Any, devices: Sequence[str]) -> None:
        wanted = set(devices)
        busy = connection.execute(
            select(t.rollouts.c.id, t.rollouts.c.owner, t.rollouts.c.owner_until_s, t.members.c.device)
            .join(t.members, t.members.c.rollout == t.rollouts.c.id)
            .where(t.rollouts.c.state.in_(("running", "undoing")))
        ).all()
        shared = [row for row in busy if row.device in wanted]
        for row in shared:
            if lives(row.owner, row.owner_until_s):
                hint = "wait for it, or choose other devices with --target"
                raise UsageError(f"rollout {row.id} works on {row.device} ({who(row.owner)})", hint=hint)
        dead = {row.id for row in shared}
        over = {"state": "stopped", "reason": "another rollout has taken its devices", "ended_s": time.time()}
        connection.execute(update(t.rollouts).where(t.rollouts.c.id.in_(dead)).values(**over))

    def rollouts(self, *states: RolloutState, release: str = "") -> tuple[Rollout, ...]:
        """The rollouts in these states (all of them when none are named), the newest first."""
        query = select(t.rollouts).order_by(t.rollouts.c.began_s.desc())
        if states:
            query = query.where(t.rollouts.c.state.in_(states))
        if release:
            query = query.where(t.rollouts.c.release == release)
        with self._db.read() as connection:
            return tuple(rollout_of_row(row) for row in connection.execute(query))

    def take_over(self, rollout: str) -> Rollout:
        """Go on with a rollout whose controller has died. Raises UsageError while that one lives."""
        with self._db.write() as connection:
            row = connection.execute(select(t.rollouts).where(t.rollouts.c.id == rollout)).one()
            if row.owner != this_controller() and lives(row.owner, row.owner_until_s):
                hint = "wait for it, or end it with Ctrl-C; it is taken for dead a minute after its last sign of life"
                raise UsageError(f"rollout {row.id} is being worked on ({who(row.owner)})", hint=hint)
            mine = {"owner": this_controller(), "owner_until_s": time.time() + OWNED_S}
            connection.execute(update(t.rollouts).where(t.rollouts.c.id == rollout).values(**mine))
        return replace(rollout_of_row(row), owner=this_controller())

    def beat(self, rollout: str) -> None:
        """Say that this controller lives."""
        with self._db.write() as connection:
            until = {"owner_until_s": time.time() + OWNED_S}
            connection.execute(update(t.rollouts).where(t.rollouts.c.id == rollout).values(**until))

    def let_go(self, rollout: str) -> None:
        """Leave a rollout that is not over to whoever goes on with it."""
        with self._db.write() as connection:
            connection.execute(update(t.rollouts).where(t.rollouts.c.id == rollout).values(owner="", owner_until_s=0.0))

    def turn_to(self, rollout: str, state: RolloutState, reason: str = "") -> None:
        values: dict[str, Any] = {"state": state, "reason": reason}
        if state in ("done", "stopped"):
            values |= {"ended_s": time.time(), "owner": "", "owner_until_s": 0.0}
        with self._db.write() as connection:
            connection.execute(update(t.rollouts).where(t.rollouts.c.id == rollout).values(**values))

    # --- members and waves ---

    def members(self, rollout: str) -> tuple[Member, ...]:
        query = select(t.members).where(t.members.c.rollout == rollout).order_by(t.members.c.place)
        with self._db.read() as connection:
            return tuple(member_of_row(row) for row in connection.execute(query))

    def last_part(self, device: str) -> tuple[Rollout, Member] | None:
        """A device's part in the last rollout that had it."""
        found = self.last_parts([device])
        return found.get(device)

    def last_parts(self, names: Iterable[str]) -> dict[str, tuple[Rollout, Member]]:
        """The same for many: each device's part in its last rollout."""
        newest = (
            select(t.members.c.device, func.max(t.rollouts.c.began_s).label("began"))
            .join(t.rollouts, t.members.c.rollout == t.rollouts.c.id)
            .group_by(t.members.c.device)
            .subquery()
        )
        join = and_(newest.c.device == t.members.c.device, newest.c.began == t.rollouts.c.began_s)
        query = select(t.members).join(t.rollouts, t.members.c.rollout == t.rollouts.c.id).join(newest, join)
        rollouts = {rollout.id: rollout for rollout in self.rollouts()}
        wanted = set(names)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return {row.device: (rollouts[row.rollout], member_of_row(row)) for row in rows if row.device in wanted}

    def put(self, rollout: str, member: Member, *, desired: str | None = None) -> Member:
        """Write a device's new state, and what it is to have from now on when that changes too."""
        member = replace(member, since_s=time.time())
        with self._db.write() as connection:
            where = and_(t.members.c.rollout == rollout, t.members.c.device == member.device)
            connection.execute(update(t.members).where(where).values(**row_of(member)))
            if desired is not None:
                self._set_desired(connection, member.device, desired, member.reason, member.device_class)
        return member

    def start_wave(self, rollout: str, devices: Sequence[str], number: int) -> None:
        with self._db.write() as connection:
            where = and_(t.members.c.rollout == rollout, t.members.c.device.in_(devices))
            values = {"state": "active", "wave": number, "since_s": time.time()}
            connection.execute(update(t.members).where(where).values(**values))

    def judged(self, rollout: str, number: int, verdict: GateVerdict) -> None:
        """Write a wave's verdict; one that did not pass ends the rollout in the same transaction."""
        row = {"rollout": rollout, "number": number, "passed": verdict.passed, "judged_s": time.time()}
        texts = {"reasons": json.dumps(verdict.reasons), "notes": json.dumps(verdict.notes)}
        with self._db.write() as connection:
            connection.execute(insert(t.waves).values(**row, **texts))
            if not verdict.passed:
                why = {"state": "undoing", "reason": f"wave {number}: {'; '.join(verdict.reasons)}"}
                connection.execute(update(t.rollouts).where(t.rollouts.c.id == rollout).values(**why))

    def waves(self, rollout: str) -> tuple[Wave, ...]:
        members = self.members(rollout)
        query = select(t.waves).where(t.waves.c.rollout == rollout).order_by(t.waves.c.number)
        with self._db.read() as connection:
            rows = connection.execute(query).all()
        return tuple(
            Wave(
                number=row.number,
                devices=tuple(member.device for member in members if member.wave == row.number),
                verdict=GateVerdict(
                    passed=row.passed, reasons=tuple(json.loads(row.reasons)), notes=tuple(json.loads(row.notes))
                ),
            )
            for row in rows
        )

    # --- steps ---

    @contextmanager
    def step(self, rollout: str, device: str, step: StepName, release: str) -> Iterator[dict[str, Any]]:
        """Write that a step begins, and when the block is over how it ended; what is put into the dict is kept."""
        detail: dict[str, Any] = {}
        row = {"rollout": rollout, "device": device, "step": step, "release": release}
        with self._db.write() as connection:
            begun = insert(t.steps).values(**row, began_s=time.time(), outcome="", detail="")
            number = int(connection.execute(begun.returning(t.steps.c.id)).scalar_one())
        try:
            yield detail
        except DeployError as fault:
            self._end_step(number, fault.code, {**detail, "error": fault.message})
            raise
        # Anything else (Ctrl-C, a fault of ours) leaves the end open: nobody knows it.
        self._end_step(number, "ok", detail)

    def _end_step(self, number: int, outcome: str, detail: Mapping[str, Any]) -> None:
        values = {"ended_s": time.time(), "outcome": outcome, "detail": json.dumps(detail, sort_keys=True)}
        with self._db.write() as connection:
            connection.execute(update(t.steps).where(t.steps.c.id == number).values(**values))

    def steps(self, rollout: str, device: str = "") -> tuple[Row[Any], ...]:
        """The steps of a rollout in the order they were begun: rows of `tables.steps`."""
        where = t.steps.c.rollout == rollout
        if device:
            where = and_(where, t.steps.c.device == device)
        with self._db.read() as connection:
            return tuple(connection.execute(select(t.steps).where(where).order_by(t.steps.c.id)))

    def past(self) -> list[Took]:
        """The steps that went well, the newest first."""
        query = select(t.steps).where(t.steps.c.outcome == "ok").order_by(t.steps.c.id.desc()).limit(_PAST_STEPS)
        found = []
        with self._db.read() as connection:
            for row in connection.execute(query):
                seconds = max(0.0, row.ended_s - row.began_s)
                sent = json.loads(row.detail).get("bytes_on_wire", 0) if row.step == "transfer" else 0
                # Below a tenth of a second or 100 kB it is the round trips that were measured.
                told = sent > 100_000 and seconds > 0.1
                rate = sent / seconds if told else 0.0
                found.append(Took(device=row.device, step=row.step, seconds=seconds, bytes_per_s=rate))
        return found

    # --- what devices are to have ---

    def seen(self, device: str, device_class: str, installed: str, pending: str) -> None:
        """Write down what a device says it has."""
        values = {"device_class": device_class, "installed": installed, "pending": pending, "seen_s": time.time()}
        with self._db.write() as connection:
            self._upsert(connection, device, values)

    def desire(self, devices: Mapping[str, str], release: str, why: str) -> None:
        """From now on these devices (name → class) are to have a release; pinned ones are left alone."""
        with self._db.write() as connection:
            for device, device_class in devices.items():
                self._set_desired(connection, device, release, why, device_class)

    def pin(self, device: str, device_class: str, release: str) -> None:
        """Keep a device at a release, whatever is pushed; "" lets it go."""
        values = {"pinned": bool(release), "why": "deploy pin" if release else "", "since_s": time.time()}
        if release:
            values["desired"] = release
        with self._db.write() as connection:
            self._upsert(connection, device, {**values, "device_class": device_class})

    def known(self) -> dict[str, Row[Any]]:
        """Every device ever seen or wanted: rows of `tables.devices`."""
        with self._db.read() as connection:
            return {row.device: row for row in connection.execute(select(t.devices).order_by(t.devices.c.device))}

    def _set_desired(self, connection: Any, device: str, release: str, why: str, device_class: str) -> None:
        row = connection.execute(select(t.devices).where(t.devices.c.device == device)).one_or_none()
        if row is None or not row.pinned:
            values = {"desired": release, "why": why, "since_s": time.time(), "device_class": device_class}
            self._upsert(connection, device, values)

    def _upsert(self, connection: Any, device: str, values: Mapping[str, Any]) -> None:
        where: ColumnElement[bool] = t.devices.c.device == device
        if not connection.execute(update(t.devices).where(where).values(**values)).rowcount:
            empty = {"device_class": "", "installed": "", "pending": "", "seen_s": None, "desired": "", "why": ""}
            row = {**empty, "pinned": False, "since_s": time.time(), **values}
            connection.execute(insert(t.devices).values(device=device, **row))


def open_journal(where: str, folder: Path, *, trusted: bool = False) -> Journal:
    """The journal at a URL, or in the state folder; raises what `tables.open_database` raises."""
    return Journal(t.open_database(where, folder, trusted=trusted))
