"""What else a device was busy with while a program of ours ran: `other_cpu_share`, as the agent tells it.

The program's own shell reads the clocks of all cores before and after it, and asks the kernel what the program took.
"""

import re

from targets.agent.edge.watching import busy_s

# Everything here is built into the shell; `times` says what a shell and what its children took.
BEFORE = "cpu0= up0=; { read -r cpu0 </proc/stat; read -r up0 rest </proc/uptime; } 2>/dev/null"
AFTER = """
{ read -r cpu1 </proc/stat; read -r up1 rest </proc/uptime; echo "@ $up0 $up1"; echo "$cpu0"; echo "$cpu1"; times
} >>"$2" 2>/dev/null
"""
_TICK_S = 0.01  # the kernel counts in these, on every core, on every Linux that there is
_LEAST_S = 0.2  # below that, rounding is more than what is to be found


def parse_load(text: str, cores: int) -> dict[str, str]:
    """The share of one core that others took, over all runs together; nothing where that cannot be told."""
    lasted = others = 0.0
    for begun, ended, said in re.findall(r"^@ ([\d.]+) ([\d.]+)\n((?:(?!@).*\n)*)", text, re.MULTILINE):
        before, after, *took = said.splitlines()
        if len(took) < 2 or not (was := busy_s(before)) or not (now := busy_s(after)):
            return {}
        lasted += float(ended) - float(begun)
        others += max(0.0, now - was - sum(map(_seconds, took[-1].split())) - cores * _TICK_S)
    return {"other_cpu_share": f"{others / lasted:.3f}"} if lasted >= _LEAST_S else {}


def _seconds(written: str) -> float:
    found = re.fullmatch(r"(\d+)m([\d.]+)s?", written)
    return 60 * int(found[1]) + float(found[2]) if found else 0.0
