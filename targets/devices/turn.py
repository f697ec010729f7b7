"""Taking turns on a device that has only a shell: two benchmarks at once would measure each other.

The lock is a folder, because `mkdir` either makes it or fails. In it stands which session holds it and until when.
It is void once that session's own folder is gone (its pulse has ended) or its time is over. To end a void lock, a
folder is made inside it: only one can, and only that one then looks once more before removing it, so that nobody
removes the next one's lock.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from targets.devices.shell_session import ShellSession
from targets.errors import DeployError, DeviceTimeout

_LOOK_S = 0.5  # between two tries: a benchmark takes seconds, and looking disturbs it
_GRACE_S = 30.0  # beyond the deadline: for what comes before and after the benchmark itself

_TAKE = """
lock=$1 sessions=$2 session=$3
now=$(date +%s)
void() {
  held= until=
  if read -r held until <"$lock/owner"; then [ ! -d "$sessions/$held" ] || [ "$now" -gt "$until" ]
  else [ -z "$(find "$lock" -maxdepth 0 -mmin -1)" ]; fi
} 2>/dev/null
if mkdir "$lock" 2>/dev/null; then echo "$session $((now + $4))" >"$lock/owner" && echo taken
elif [ ! -d "$lock" ]; then [ -w "${lock%/*}" ] && echo again
elif void && mkdir "$lock/ending" 2>/dev/null; then
  if void; then rm -rf "$lock"; else rmdir "$lock/ending"; fi
  echo again
else echo "held $held"; fi
"""
_LEAVE = 'read -r held until <"$1/owner"; [ "$held" != "$2" ] || rm -rf "$1"'


@contextmanager
def turn(session: ShellSession, deadline_s: float, name: str = "bench.turn") -> Iterator[float]:
    """Hold the device for a benchmark, or for what else `name` stands for; gives how many seconds that took.

    Raises DeviceTimeout when another one held it all the time.
    """
    lock = f"{session.root}/{name}"
    words = (lock, f"{session.root}/sessions", session.session, f"{deadline_s + _GRACE_S:.0f}")
    start = time.monotonic()
    while True:
        said = session.script(_TAKE, *words, doing="taking its turn").strip()
        if said == "taken":
            break
        if time.monotonic() - start > deadline_s:
            what = "benchmark" if name == "bench.turn" else "change of its releases"
            hint = f"wait for {said.removeprefix('held ')}; if nobody does: adb shell rm -r {lock}"
            raise DeviceTimeout(f"{session.name}: another {what} held this device all the time", hint=hint)
        time.sleep(_LOOK_S if said != "again" else 0)
    try:
        yield time.monotonic() - start
    finally:
        if not session.over:
            with suppress(DeployError):  # the lock is void with the session anyway
                session.script(_LEAVE, lock, session.session, doing="ending its turn")
