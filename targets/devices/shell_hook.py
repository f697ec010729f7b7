"""Programs of a phone's owner, run by its shell under the rules of `targets.agent.edge.hook`."""

from collections.abc import Sequence

from targets.agent.edge.hook import OUTPUT_BYTES
from targets.devices.shell_session import ShellSession
from targets.errors import HookRefused
from targets.releases import HookRun

_SIGNALLED = 128  # a shell's exit code of a program that a signal ended, less the signal
# As `targets.agent.edge.hook.check`. Android's own folders belong to system users, whose numbers are below 10000; those
# of apps are above.
_MAY_RUN = """
real=$(readlink -f "$2") && [ -e "$real" ] || { echo 'is not there'; exit 0; }
root=$(readlink -f "$1")
case $real in "$root"/*) echo "lies among what is deployed; the owner's programs lie elsewhere"; exit;; esac
[ -f "$real" ] && [ -x "$real" ] || { echo 'is not executable'; exit; }
mine=$(id -u) group=$(id -g) apps=1
[ ! -f /system/build.prop ] || apps=10000
while :; do
  found=$(stat -c '%u %g %a' "$real") || exit
  set -- $found
  bits=$((0$3)) open=
  [ "$1" -lt $apps ] || [ "$1" = "$mine" ] || open=yes
  [ $((bits & 2)) = 0 ] || [ $((bits & 512)) != 0 ] || open=yes
  [ $((bits & 16)) = 0 ] || [ "$2" -lt $apps ] || [ "$2" = "$group" ] || open=yes
  [ -z "$open" ] || { echo "can be changed by others: $real"; exit; }
  [ "$real" != / ] || break
  real=${real%/*} real=${real:-/}
done
"""


def run_hook(session: ShellSession, argv: Sequence[str], release: str, deadline_s: float) -> HookRun:
    """Run argv, which finds the current release in its environment; raises HookRefused or DeviceTimeout."""
    if not argv or not argv[0].startswith("/"):
        raise HookRefused(f"{session.name}: not an absolute path: {list(argv[:1])}")
    if said := session.script(_MAY_RUN, session.root, argv[0], doing="looking at the hook").strip():
        raise HookRefused(f"{session.name}: {argv[0]} {said}")
    current = f"{session.root}/current"
    environ = {"EDGE_DEPLOY_ROOT": session.root, "EDGE_DEPLOY_CURRENT": current, "EDGE_DEPLOY_RELEASE": release}
    command = ["env", *(f"{key}={value}" for key, value in environ.items()), *argv]
    done = session.run(["sh", "-c", 'exec 2>&1 </dev/null; exec "$@"', "hook", *command], deadline_s)
    output = done.stdout[-OUTPUT_BYTES:].decode("utf-8", "replace").strip()
    code = done.exit_code if done.exit_code <= _SIGNALLED else _SIGNALLED - done.exit_code
    return HookRun(exit_code=code, output=output)
