"""Energy counters of an x86 processor as the kernel's powercap shows them: they only grow, wrap, and are root's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from targets.lab.power.model import PowerParameters, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Rapl:
    """One domain. Sub-domains are part of their package: adding both counts energy twice."""

    domain: str = "0"  # "0:0" is the first sub-domain of package 0
    name: str = "package-0"
    max_energy_range_uj: int = 262_143_328_850  # what most processors have: 44 minutes at 100 W
    start_uj: int = 0
    idle_share: float = 1.0
    busy_share: float = 1.0
    readable: bool = False  # by ordinary users, as before Linux 5.10 (CVE-2020-8694)

    interval_s: ClassVar[float] = 0.0

    @property
    def folder(self) -> str:
        return f"intel-rapl:{self.domain}"

    @property
    def root_only(self) -> frozenset[str]:
        return frozenset() if self.readable else frozenset({"energy_uj"})

    def files(self, parameters: PowerParameters, state: State) -> Mapping[str, object]:
        drawn_j = self.idle_share * (state.energy_j - state.busy_j) + self.busy_share * state.busy_j
        return {
            "name": self.name,
            "enabled": 1,
            "max_energy_range_uj": self.max_energy_range_uj,
            "energy_uj": (self.start_uj + int(drawn_j * 1e6)) % self.max_energy_range_uj,
        }

    def links(self, hwmon: str) -> Iterator[tuple[str, str]]:
        yield f"class/powercap/{self.folder}", self.folder
