"""Which devices come next. Pure: the states of the members decide, so a restarted controller goes on where it was.

Devices are taken group by group (the same model on the same kind of processor), because an answer on one kind says
little of another: each group has its own canaries. A wave's size counts the devices with evidence, good or bad. A
device that was not reached is no evidence, so that another one takes its place and no group goes on unproven.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from pipeline.rollout.records import BAD, GOOD, Member, WaveSize

# 10 % of 30 devices is 3.0000000000000004 in binary, and 3 devices.
_ROUNDING = 1e-9


def totals(waves: Sequence[WaveSize], devices: int) -> tuple[int, ...]:
    """How many of so many devices have been taken after each wave; never less than after the one before."""
    found: list[int] = []
    for wave in waves:
        asked = wave.count or ceil(wave.share * devices - _ROUNDING)
        found.append(min(devices, max(1, asked, *found)) if devices else 0)
    return tuple(found)


def next_wave(members: Sequence[Member], waves: Sequence[WaveSize]) -> tuple[str, ...]:
    """The devices of the next wave, in the order of `members`; empty when none waits any more.

    Members in the middle of something are finished first; that is the caller's.
    """
    taken: list[str] = []
    for group in dict.fromkeys(member.group for member in members):
        mine = [member for member in members if member.group == group]
        waiting = [member.device for member in mine if member.state == "waiting"]
        seen = sum(member.state in GOOD or (member.state in BAD and member.wave > 0) for member in mine)
        level = next((total for total in totals(waves, seen + len(waiting)) if total > seen), 0)
        taken += waiting[: max(0, level - seen)]
    order = [member.device for member in members]
    return tuple(sorted(taken, key=order.index))


def foreseen(members: Sequence[Member], waves: Sequence[WaveSize]) -> tuple[tuple[str, ...], ...]:
    """All waves as they come when every device does well."""
    found, now = [], list(members)
    while batch := next_wave(now, waves):
        found.append(batch)
        now = [replace(member, state="confirmed", wave=1) if member.device in batch else member for member in now]
    return tuple(found)
