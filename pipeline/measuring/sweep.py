"""Which numbers of threads on which cores are worth a look."""

from collections.abc import Mapping
from dataclasses import replace

from pipeline.measuring.subjects import How
from targets.records import Facts


def ways(facts: Facts, how: How) -> list[How]:
    """Every power of two and all cores, on all cores together and on each cluster alone. The first is the default: one
    thread, anywhere."""
    found = [replace(how, threads=threads) for threads in _threads(facts.cpu_count)]
    clusters = clusters_of(facts.conditions)
    if len(clusters) > 1:
        found += [replace(how, threads=n, cpus=cores) for cores in clusters for n in _threads(len(cores))]
    return found


def clusters_of(conditions: Mapping[str, str]) -> list[tuple[int, ...]]:
    """The clusters that a device's facts name, such as `0-3 4-7`, or none."""
    found = []
    for word in conditions.get("clusters", "").split():
        first, _, last = word.partition("-")
        found.append(tuple(range(int(first), int(last or first) + 1)))
    return found


def _threads(cores: int) -> list[int]:
    return sorted({1, cores, *(n for n in (2, 4, 8) if n < cores)})
