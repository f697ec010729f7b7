"""Why each device is where it is. Pure: from what the journal has and what the device has just said."""

from dataclasses import dataclass
from typing import Any, Literal

from pipeline.rollout.plan import security_note
from pipeline.rollout.records import NOTHING_BEFORE, Member, Rollout, Seen
from targets.records import Absent

StatusState = Literal[
    "current", "pending", "behind", "unconfirmed", "in-rollout", "pinned", "refused", "lost", "unknown"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One device. Releases are their ids, "" is none."""

    device: str
    device_class: str
    installed: str | Absent
    desired: str
    state: StatusState
    reason: str
    hint: str
    since_s: float | Absent  # Unix time
    rollout: str = ""  # the last one that had it
    differs: str = ""  # what the journal believed, when the device says otherwise
    note: str = ""  # that it takes unsigned releases, say; "" also when it was not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A row of the journal's devices."""

    installed: str
    pending: str
    seen: bool
    desired: str
    pinned: bool
    why: str
    since_s: float


def known_of(row: Any) -> Known:
    return Known(
        installed=row.installed,
        pending=row.pending,
        seen=row.seen_s is not None,
        desired=row.desired,
        pinned=row.pinned,
        why=row.why,
        since_s=row.since_s,
    )


def status_of(
    device: str,
    device_class: str,
    *,
    known: Known | None,
    part: tuple[Rollout, Member] | None = None,
    seen: Seen | None = None,
) -> Status:
    """The device's truth first, then the journal's, then why."""
    has = seen.installed if seen else None
    installed: str | Absent = Absent(reason="never seen")
    if has:
        installed = has.current
    elif known and known.seen:
        installed = known.installed
    state, reason, hint, since_s = _why(known, part, seen, installed)
    believed = known.installed if known and known.seen else None
    return Status(
        device=device,
        device_class=device_class,
        installed=installed,
        desired=known.desired if known else "",
        state=state,
        reason=reason,
        hint=hint,
        since_s=since_s,
        rollout=part[0].id if part else "",
        differs=believed if has and believed is not None and believed != has.current else "",
        note=security_note(has.keys, has.note) if has else "",
    )


def _why(
    known: Known | None, part: tuple[Rollout, Member] | None, seen: Seen | None, installed: str | Absent
) -> tuple[StatusState, str, str, float | Absent]:
    member = part[1] if part else None
    since_s: float | Absent = member.since_s if member else known.since_s if known else Absent(reason="no rollout yet")
    if known and known.pinned:
        there = "" if installed == known.desired else f", at {known.desired[:12]}, which it does not have"
        return "pinned", f"kept there by deploy pin{there}", "", known.since_s
    if (
        part
        and member
        and part[0].state in ("running", "undoing")
        and member.state in ("waiting", "active", "reverting")
    ):
        doing = {"waiting": "waits for its turn", "active": "being worked on", "reverting": "going back"}
        return "in-rollout", f"{doing[member.state]} in {part[0].id}", "", since_s
    if part and member and part[0].state in ("running", "undoing") and member.state == "pending":
        return "pending", member.reason, member.hint or "deploy reconcile", since_s
    if seen and seen.fault:
        state: StatusState = "lost" if member and member.state == "lost" else "pending"
        return state, seen.fault.message, seen.fault.hint, since_s
    pending = seen.installed.pending if seen and seen.installed else known.pending if known else ""
    if pending and not isinstance(installed, Absent):
        told = "switched to, but not proved" + (f": {member.reason}" if member and member.reason else "")
        return "unconfirmed", told, "deploy reconcile", since_s
    # A rollback that had nowhere to go says nothing of what it has.
    if member and member.code == NOTHING_BEFORE:
        return "current", member.reason, "", since_s
    brought_back = part is not None and part[0].kind == "rollback"  # which is what was wanted of it
    if member and member.state in ("failed", "reverted", "lost") and not (brought_back and member.state == "reverted"):
        return "lost" if member.state == "lost" else "refused", member.reason, member.hint, since_s
    if known and known.desired and installed != known.desired:
        state = "pending" if member and member.state == "pending" else "behind"
        told = member.reason if member and state == "pending" else "not what it is to have"
        return state, told, "deploy reconcile", since_s
    if part and member and member.state in ("waiting", "pending"):
        stopped = f"{part[0].name} {part[0].release[:12]} was stopped before its turn" if part[0].reason else ""
        state = "current" if known and known.desired else "unknown"
        return state, stopped or member.reason, "", since_s
    if known and known.desired:
        by_state = {"confirmed": "answers", "reverted": member.reason if member else ""}
        return "current", by_state.get(member.state if member else "", known.why), "", since_s
    return "unknown", "nothing was ever pushed to it", "", since_s
