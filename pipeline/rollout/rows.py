"""Rows of the journal's tables as records, and back."""

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row

from pipeline import codec
from pipeline.rollout.records import Member, MemberState, Pair, Policy, Rollout
from targets.records import Absent


def row_of(member: Member) -> dict[str, Any]:
    """The columns of a device's part in a rollout."""
    return {**asdict(member), "pairs": json.dumps([[pair.before_ms, pair.after_ms] for pair in member.pairs])}


def member_of_row(row: Row[Any]) -> Member:
    """The same, read."""
    state: MemberState = row.state
    return Member(
        device=row.device,
        device_class=row.device_class,
        group=row.group,
        state=state,
        wave=row.wave,
        installed=row.installed,
        code=row.code,
        reason=row.reason,
        hint=row.hint,
        bytes_on_wire=row.bytes_on_wire,
        pairs=tuple(Pair(before_ms=before, after_ms=after) for before, after in json.loads(row.pairs)),
        boot_id=row.boot_id,
        since_s=row.since_s,
    )


def rollout_of_row(row: Row[Any]) -> Rollout:
    """A rollout, read."""
    return Rollout(
        id=row.id,
        kind=row.kind,
        release=row.release or "",
        name=row.name,
        state=row.state,
        reason=row.reason,
        policy=codec.decode(Policy, row.policy.encode()),
        allow_downgrade=row.allow_downgrade,
        owner=row.owner,
        began_s=row.began_s,
        ended_s=row.ended_s if row.ended_s is not None else Absent(reason="not over"),
    )
