"""What a device has in use, as its shell tells: one round trip, and no Python is started there.

Of a hundred devices that a push asks, most have the release already. Starting an agent on each to hear that is most of
what it costs. The script uses nothing but what is built into a POSIX shell, so that it starts no other program either.
"""

import re
import time
from dataclasses import dataclass

from targets.errors import AgentFailed
from targets.transport import Transport

_MOST_LINES = 100  # of noise from a login script, and of trusted keys
_LINE_BYTES = 4096
_RELEASE = re.compile(r"/releases/([0-9a-f]{64})$")
_KEY = re.compile(r"^[0-9a-f]{64}$")

# Names each line, because a login script may print what it likes before; the last says that nothing is missing.
_SCRIPT = r"""
case $0 in "~") root=$HOME;; "~/"*) root=$HOME/${0#"~/"};; *) root=$0;; esac
cd -- "$root" 2>/dev/null && for link in current confirmed; do
  where=$(cd -P -- "$link" 2>/dev/null && pwd -P) && echo "edge-deploy $link $where"
done
for key in trust/*; do [ -e "$key" ] && echo "edge-deploy trust ${key#trust/}"; done
[ -e lease.json ] && echo "edge-deploy lease held"
read -r boot </proc/sys/kernel/random/boot_id && echo "edge-deploy boot $boot"
echo "edge-deploy end ."
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """Enough to see that a device has what it is to have, and no more; releases and keys are 64 hex digits."""

    current: str  # "" for none
    confirmed: str
    keys: tuple[str, ...]
    leased: bool  # by whom and for how long yet, the agent says
    boot_id: str

    @property
    def pending(self) -> str:
        """The release that was activated but not confirmed yet."""
        return self.current if self.current != self.confirmed else ""


def glance(transport: Transport) -> Glance | None:
    """Ask the shell behind a transport; None when it does not answer as a POSIX shell does."""
    deadline = time.monotonic() + transport.spec.connect_timeout_s
    told: dict[str, list[str]] = {}
    stream = transport.start(["sh", "-c", _SCRIPT, transport.root])
    try:
        with transport.guard("a glance"):
            for _ in range(_MOST_LINES):
                words = stream.read_line(deadline, _LINE_BYTES).decode("utf-8", "replace").split(" ", 2)
                if len(words) == 3 and words[0] == "edge-deploy":
                    told.setdefault(words[1], []).append(words[2])
                if "end" in told:
                    return _read(told)
    except (EOFError, AgentFailed):
        return None
    finally:
        stream.close()
    return None


def _read(told: dict[str, list[str]]) -> Glance:
    releases = {name: _RELEASE.search(told.get(name, [""])[0]) for name in ("current", "confirmed")}
    named = {name: found[1] if found else "" for name, found in releases.items()}
    return Glance(
        current=named["current"],
        confirmed=named["confirmed"],
        keys=tuple(key for key in told.get("trust", []) if _KEY.match(key)),
        leased="lease" in told,
        boot_id=told.get("boot", [""])[0],
    )
