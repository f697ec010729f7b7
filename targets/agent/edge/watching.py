"""What the device was doing while a benchmark ran: its real clock speed, and what else it was busy with."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from .files import read_text

LOOK_S = 0.25  # often enough to see a throttled second, seldom enough to cost nothing
_TICKS = float(os.sysconf("SC_CLK_TCK"))
_IDLE = (3, 4)  # fields of /proc/stat that are no work: idle, iowait


class Watch:
    """Looked at from time to time between `begin` and `end`."""

    def __init__(self) -> None:
        self.khz: list[int] = []
        self.looked = self.begun = self.busy = self.own = self.offset = 0.0

    def begin(self) -> None:
        self.begun = time.monotonic()
        self.offset = time.time() - self.begun
        self.busy, self.own = busy_s(read_text("/proc/stat")), own_s()

    def look(self) -> None:
        """Note the clock speed, if the last look is long enough ago."""
        now = time.monotonic()
        if now - self.looked >= LOOK_S:
            self.looked = now
            self.khz += clocks()

    def end(self) -> dict[str, str]:
        """As conditions of the measurement; what the device does not say is left out."""
        lasted = time.monotonic() - self.begun
        seen = {"clock_step_ms": "%.1f" % ((time.time() - time.monotonic() - self.offset) * 1000)}
        if self.busy and lasted > 0:
            others = busy_s(read_text("/proc/stat")) - self.busy - (own_s() - self.own)
            # The kernel counts in ticks of 10 ms, on every core.
            seen["other_cpu_share"] = "%.3f" % max(0.0, (others - (os.cpu_count() or 1) / _TICKS) / lasted)
        if self.khz:
            seen["cpu_freq_khz_lowest"], seen["cpu_freq_khz_highest"] = str(min(self.khz)), str(max(self.khz))
        return seen


def busy_s(stat: str) -> float:
    """Seconds of work of all cores since boot, from the text of /proc/stat; 0 when it does not say."""
    words = stat.partition("\n")[0].split()
    if len(words) < 8 or words[0] != "cpu":
        return 0.0
    return sum(float(ticks) for place, ticks in enumerate(words[1:9]) if place not in _IDLE) / _TICKS


def own_s() -> float:
    """Seconds of work of this process and of its children that have ended."""
    mine = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in mine)


def clocks(folder: str = "/sys/devices/system/cpu") -> list[int]:
    """The clock of each core or cluster that shows one, in kHz. Of several clusters the slowest tells nothing about
    the one in use, so only the fastest counts."""
    found = [
        int(text)
        for path in sorted(Path(folder).glob("cpufreq/policy*/scaling_cur_freq"))
        if (text := read_text(str(path))).isdigit()
    ]
    return [max(found)] if found else []
