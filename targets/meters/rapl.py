"""The energy counters of x86 processors, by the kernel's powercap (Intel's RAPL; AMD's Zen shows itself the same way).

Each package has a counter that wraps at a range of its own. Its sub-domains (core, uncore, dram) are parts of it, psys
and intel-rapl-mmio are the same energy once more: none of them is added.
"""

import re
from collections.abc import Mapping, Sequence

from targets.meter import Readings
from targets.meters.sysfs import folders, numbers, whole
from targets.records import Absent, Counter, PowerSource, PowerTrace

_PACKAGE = re.compile(r"/intel-rapl:\d+$")
_INTERVAL_S = 0.05  # the counter moves every millisecond; a window of seconds needs its two ends and proof of evenness
_ERROR_SHARE = 0.05  # Haswell and later, against meters in the processor's supply
_MICRO = 1e-6


class Rapl:
    def sources(self, sensors: Mapping[str, str]) -> Sequence[PowerSource]:
        packages = {
            folder: files
            for folder, files in folders(sensors, "class/powercap").items()
            if _PACKAGE.search(folder) and files.get("name", "").startswith("package")
        }
        if not packages:
            return []
        readable = all(whole(files.get("energy_uj")) is not None for files in packages.values())
        paths = [f"{folder}/{name}" for folder in packages for name in ("energy_uj", "max_energy_range_uj")]
        source = PowerSource(
            meter="rapl",
            place=" ".join(packages),
            scope=f"processor ({', '.join(files['name'] for files in packages.values())}); not the rest of the machine",
            interval_s=_INTERVAL_S,
            error_share=_ERROR_SHARE,
            files=tuple(paths),
            refused="" if readable else "only root may read energy_uj (CVE-2020-8694)",
        )
        return [source]

    def trace(self, source: PowerSource, readings: Readings) -> PowerTrace | Absent:
        samples = list(numbers(readings))
        counters = tuple(
            Counter(
                name=path.split("/")[-2],
                range_j=samples[0][1][place + 1] * _MICRO,
                readings_j=tuple(values[place] * _MICRO for _, values in samples),
            )
            for place, path in enumerate(source.files)
            if place % 2 == 0 and samples
        )
        return counted(source, [time_ns for time_ns, _ in samples], counters)


def counted(
    source: PowerSource, time_ns: Sequence[int], counters: tuple[Counter, ...], *notes: str
) -> PowerTrace | Absent:
    """The trace of accumulating registers."""
    if not time_ns or not counters:
        return Absent(reason=f"{source.meter} ({source.place}) gave no reading")
    return PowerTrace(
        meter=source.meter,
        scope=source.scope,
        time_ns=tuple(time_ns),
        counters=counters,
        kind=source.kind,
        interval_s=source.interval_s,
        averaging_s=source.averaging_s,
        error_share=source.error_share,
        notes=notes,
    )
