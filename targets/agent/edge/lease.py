"""Who has the device to itself, and for how long yet.

Time is counted by the clock that no one sets, which begins with the device's start. After a restart nobody can know how
long it was off, so the whole lease begins again: never shorter than was promised, and never for ever.

ROOT/lease.json   {"owner", "boot", "seconds", "until"}
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from .files import PRIVATE, flush, read_text, write_file
from .wire import Json, Refused

MAX_LEASE_S = 24 * 3600.0  # a controller that needs longer asks again
MAX_OWNER = 200


def boot_id() -> str:
    return read_text("/proc/sys/kernel/random/boot_id")


def since_boot_s() -> float:
    """Seconds since the start, those asleep included."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class Lease:
    """The lease of one device, and on whose behalf this session acts."""

    def __init__(self, root: Path) -> None:
        self.path = root / "lease.json"
        self.mine = ""

    def holder(self) -> tuple[str, float]:
        """The owner and the seconds left; ("", 0) when nobody has it."""
        try:
            kept = json.loads(self.path.read_bytes())
            owner, seconds, until = str(kept["owner"]), float(kept["seconds"]), float(kept["until"])
            restarted = kept["boot"] != boot_id()
        except FileNotFoundError:
            return "", 0.0
        except (ValueError, KeyError, TypeError):
            return "", 0.0  # not of our writing, for that is atomic
        left = min(seconds, (seconds if restarted else until) - since_boot_s())
        return (owner, left) if left > 0 else ("", 0.0)

    def check(self, me: str = "") -> None:
        """Raise unless nobody holds the device but the one this session acts for, or `me`."""
        owner, left = self.holder()
        if owner and owner != (me or self.mine):
            raise Refused("leased", "%s has it to itself, for %.0f s yet" % (owner, left), owner=owner, left_s=left)

    def take(self, request: Json) -> None:
        owner, seconds = request["owner"], float(request["seconds"])
        if not isinstance(owner, str) or not owner.isprintable() or not 0 < len(owner) <= MAX_OWNER:
            raise Refused("agent", "no name for an owner: %r" % (owner,))
        if not 0 < seconds <= MAX_LEASE_S:
            raise Refused("agent", "a lease lasts up to %.0f s, not %r" % (MAX_LEASE_S, seconds))
        self.check(owner)
        kept = {"owner": owner, "boot": boot_id(), "seconds": seconds, "until": since_boot_s() + seconds}
        write_file(self.path, json.dumps(kept).encode(), PRIVATE)
        self.mine = owner

    def give_back(self, owner: str) -> None:
        if self.holder()[0] == owner:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)  # noqa: PTH108
                flush(self.path.parent)
        if self.mine == owner:
            self.mine = ""
