"""On-device power rails monitor of Pixel phones (6 and later): accumulating registers of their power chips.

The kernel driver shows them in `energy_value` of two IIO devices, in µWs since boot:

    t=1279315
    CH0(T=1279315)[S1M_VDD_AMB], 51899976

Most builds allow that to root only. Then the phone's power HAL is asked, which any shell may do: `dumpsys
android.hardware.power.stats.IPowerStats/default` tells each rail's energy in hundredths of a mWs:

    [S1M_VDD_AMB]:AMB         51.90 mWs

(`dumpsys powerstats` itself lists the rails and not their energy: PowerStatsService of Android 12 to 15.) Rails named
S… are step-down converters, VSYS_PWR_… lines at the battery's voltage; L… are linear regulators that S… feed, and would
count twice.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from targets.meter import Readings
from targets.meters.rapl import counted
from targets.records import Absent, Counter, PowerSource, PowerTrace

_RAIL = re.compile(r"^CH\d+\(T=\d+\)\[(\w+)\], (\d+)$", re.MULTILINE)
_TOLD = re.compile(r"^\s*\[?(\w+)\]?\S*\s+(\d+\.\d+) mWs", re.MULTILINE)
_TABLE = re.compile(r"PowerStats HAL 2\.0 energy meter =+\n(.*?)\n=+ End of", re.DOTALL)
COMMAND = "powerstats"
_COUNTS = re.compile(r"S\d+[A-Z]_|VSYS_PWR_")
_INTERVAL_S = 0.25  # reading makes the driver fetch all registers over a slow bus
_COMMAND_INTERVAL_S = 1.0  # a process in the phone and a call to the HAL for each reading
_ERROR_SHARE = 0.03
_MICRO = 1e-6


def rails_uws(text: str) -> Mapping[str, int]:
    """Rail -> energy since boot, of those that contain no other."""
    return {rail: int(energy) for rail, energy in _RAIL.findall(text) if _COUNTS.match(rail)}


def told_uws(text: str) -> Mapping[str, int]:
    """The same from what the HAL tells; of its other tables, states and consumers, nothing."""
    table = _TABLE.search(text)
    rails = _TOLD.findall(table[1]) if table else []
    return {rail: round(float(mws) * 1e3) for rail, mws in rails if _COUNTS.match(rail)}


class Odpm:
    def sources(self, sensors: Mapping[str, str]) -> Sequence[PowerSource]:
        by_files, by_hal = self._by_files(sensors), self._by_hal(sensors)
        usable = [source for source in (*by_files, *by_hal) if not source.refused]
        return usable[:1] or by_files

    def _by_hal(self, sensors: Mapping[str, str]) -> list[PowerSource]:
        rails = told_uws(sensors.get(f"command:{COMMAND}", ""))
        if not rails:
            return []
        source = PowerSource(
            meter="odpm",
            place=COMMAND,
            scope=_scope(len(rails)),
            interval_s=_COMMAND_INTERVAL_S,
            averaging_s=_COMMAND_INTERVAL_S,  # between two readings nothing tells when energy was drawn
            error_share=_ERROR_SHARE,
            command=COMMAND,
        )
        return [source]

    def _by_files(self, sensors: Mapping[str, str]) -> list[PowerSource]:
        files = [path for path in sensors if path.endswith("/energy_value")]
        rails = [rail for path in files for rail in rails_uws(sensors[path])]
        if (not rails and any(sensors[path] for path in files)) or not files:
            return []  # other IIO devices have energies too
        source = PowerSource(
            meter="odpm",
            place=" ".join(path.rpartition("/")[0] for path in files),
            scope=_scope(len(rails)),
            interval_s=_INTERVAL_S,
            error_share=_ERROR_SHARE,
            files=tuple(files),
            refused="" if rails else "only root may read energy_value",
        )
        return [source]

    def trace(self, source: PowerSource, readings: Readings) -> PowerTrace | Absent:
        read = told_uws if source.command else rails_uws
        found = [
            (at, {rail: energy for text in texts for rail, energy in read(text).items()})
            for at, texts in zip(readings.time_ns, readings.values, strict=True)
            if all(texts)
        ]
        names = sorted(set.intersection(*(set(rails) for _, rails in found))) if found else []
        counters = tuple(
            Counter(name=name, range_j=0.0, readings_j=tuple(rails[name] * _MICRO for _, rails in found))
            for name in names
        )
        moments_ns = [at for at, _ in found]
        if source.command and len(moments_ns) > 1:
            # Readings come as fast as the HAL answers. Registers that add up lose nothing between two of them.
            pace_s = (moments_ns[-1] - moments_ns[0]) * 1e-9 / (len(moments_ns) - 1)
            source = replace(
                source, interval_s=max(source.interval_s, pace_s), averaging_s=max(source.averaging_s, pace_s)
            )
        return counted(source, moments_ns, counters)


def _scope(rails: int) -> str:
    return f"{rails} rails of the phone's power chips, not its losses"
