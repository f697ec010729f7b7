"""Which device gets which fault when: pure, and the same for the same schedule, devices and seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import UsageError, nearest
from pipeline.rehearsal.schedule import Chosen, Entry, Schedule, parse_fault
from targets.lab.faults import suiting
from targets.lab.state import LabDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFault:
    """One fault on one device, and what is waited for, in this order: step, time, bytes."""

    device: str
    fault: str
    value: float | None
    step: str | None
    after_s: float
    bytes: int
    restore_after_s: float | None


def draw(schedule: Schedule, devices: Sequence[LabDevice]) -> tuple[PlannedFault, ...]:
    """The faults of a schedule on these devices.

    Raises UsageError for a device or kind that is not there, or cannot have the fault.
    """
    planned = []
    for number, entry in enumerate(schedule.faults):
        # Every entry has a generator of its own, so that one more entry leaves the others as they were.
        chance = random.Random(f"{schedule.seed} {number}")
        fault, value = parse_fault(entry.fault)
        when = entry.when
        for device in _devices(entry, number, devices, chance):
            try:
                suiting(device, fault)
            except UsageError as error:
                raise UsageError(f"faults[{number}]: {error.message}", hint=error.hint) from None
            wait_s = (when.after or 0.0) + chance.uniform(0, when.within or 0.0)
            planned.append(
                PlannedFault(
                    device=device.name,
                    fault=fault,
                    value=value,
                    step=when.step,
                    after_s=wait_s,
                    bytes=int(when.bytes or 0),
                    restore_after_s=entry.restore_after,
                )
            )
    return tuple(planned)


def _devices(entry: Entry, number: int, devices: Sequence[LabDevice], chance: random.Random) -> list[LabDevice]:
    here = f"faults[{number}].on"
    if isinstance(entry.on, Chosen):
        suiting = [device for device in devices if entry.on.kind in (None, device.kind)]
        if not suiting:
            kinds = ", ".join(sorted({device.kind for device in devices}))
            raise UsageError(f"{here}: the lab has no device of kind {entry.on.kind}", hint=f"it has: {kinds}")
        if entry.on.count is not None and entry.on.count > len(suiting):
            raise UsageError(f"{here}: {entry.on.count} of {len(suiting)} devices", hint="start more, or ask for fewer")
        share = 1.0 if entry.on.share is None and entry.on.count is None else entry.on.share or 0.0
        size = entry.on.count or max(1, round(share * len(suiting)))
        return chance.sample(suiting, size)
    if entry.on == "all":
        return list(devices)
    known = {device.name: device for device in devices}
    names = [entry.on] if isinstance(entry.on, str) else entry.on
    for name in names:
        if name not in known:
            hint = f"the lab has: {', '.join(known)}"
            raise UsageError(f"{here}: {name}: no device of the lab{nearest(name, known)}", hint=hint)
    return [known[name] for name in names]
