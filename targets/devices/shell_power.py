"""Power sensors of a device with nothing but a shell: what they say, and reading them while a benchmark runs there."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from targets.devices.shell_session import ShellSession
from targets.errors import AgentFailed, DeployError

# As `targets.agent.edge.power.SENSOR_FILES`, less what phones do not have. The shell reads them itself: a program takes
# a phone 5 ms.
SENSORS = """
for file in /sys/class/power_supply/*/type /sys/class/power_supply/*/online /sys/class/power_supply/*/status \\
  /sys/class/power_supply/*/current_now /sys/class/power_supply/*/voltage_now /sys/class/power_supply/*/power_now \\
  /sys/bus/iio/devices/*/energy_value; do
  [ -e $file ] || continue
  echo "@ $file"
  while read -r line; do echo "$line"; done <$file
done
rails=$(dumpsys android.hardware.power.stats.IPowerStats/default)
case $rails in *" mWs"*)
  echo "@ command:powerstats"; echo "$rails" ;;
esac
"""
# By name, as the agent's: nothing else is ever run. Any shell user may ask a service to tell of itself.
COMMANDS: Mapping[str, str] = {"powerstats": "dumpsys android.hardware.power.stats.IPowerStats/default"}
_COMMAND = "command"  # in the place of a file's name
# It ends with its file, with the session's folder, or when told to. HUP is what adbd sends it when its shell is gone.
_SAMPLE = """
out=$1 every=$2 command=$3; shift 3
: >"$out"
( trap '' HUP
  while [ -e "$out" ] && [ ! -e "$out.end" ]; do
    read -r up rest </proc/uptime
    if [ "$command" ]; then
      said=$($command)
      read -r end rest </proc/uptime
      echo "@ $up $end"; echo "# command"; echo "$said"
    else
      echo "@ $up"
    fi
    for file in "$@"; do
      echo "# $file"
      while read -r line; do echo "$line"; done <$file
    done
    sleep $every
  done >>"$out" 2>/dev/null ) </dev/null >/dev/null 2>&1 &
"""
_STOP = ': >"$1.end"'
_LIMIT_BYTES = 8_000_000  # ten minutes of twenty rails at 4 Hz


def parse_sensors(text: str) -> dict[str, str]:
    """The output of SENSORS: file -> what it says."""
    parts = re.split(r"^@ (\S+)\n", text, flags=re.MULTILINE)
    return {path: said.strip() for path, said in zip(parts[1::2], parts[2::2], strict=True)}


def parse_samples(text: str, files: list[str]) -> dict[str, Any]:
    """What the loop has written, in the agent's words: time stamps by /proc/uptime, and each file's text."""
    time_ns, values = [], []
    parts = re.split(r"^@ (\d+\.\d+(?: \d+\.\d+)?)\n", text, flags=re.MULTILINE)
    for uptimes, said in zip(parts[1::2], parts[2::2], strict=True):
        moments_ns = [_ns(uptime) for uptime in uptimes.split()]  # of a command, before it and after it
        texts = re.split(r"^# (\S+)\n", said, flags=re.MULTILINE)
        if texts[1::2] == files:  # else it was ended in the middle
            time_ns.append(sum(moments_ns) // len(moments_ns))
            values.append([found.strip() for found in texts[2::2]])
    return {"time_ns": time_ns, "values": values}


def _ns(uptime: str) -> int:
    seconds, _, hundredths = uptime.partition(".")
    return int(seconds) * 10**9 + int(hundredths.ljust(9, "0"))


@contextmanager
def sampled(session: ShellSession, reading: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Read a sensor's files on the device meanwhile; the readings are in what this gives once it has ended."""
    found: dict[str, Any] = {}
    if reading is None:
        yield found
        return
    out, files = f"{session.folder}/power", list(reading["files"])
    command = ""
    if asked := reading["command"]:
        if asked not in COMMANDS:
            raise AgentFailed(f"{session.name}: a shell cannot read {asked}", hint="choose another `meter`")
        command, files = COMMANDS[asked], [_COMMAND]
    given = [] if command else files
    session.script(_SAMPLE, out, f"{reading['interval_s']:g}", command, *given, doing="reading its power sensor")
    try:
        yield found
        session.script(_STOP, out, doing="reading its power sensor")
        found |= parse_samples(session.fetch(out, _LIMIT_BYTES).decode("ascii", "replace"), files)
    finally:
        if not session.over:
            with suppress(DeployError):
                session.script('rm -f "$1"', out, doing="ending its power sensor")
