"""What a device is given before it starts: a cgroup that counts and limits it, and sensors that tell what it costs."""

import os
from dataclasses import dataclass
from pathlib import Path

from targets.errors import EnvironmentFault
from targets.lab.power.cgroup import Cgroup, create
from targets.lab.power.mount import mount_accounting, mount_sensors, open_fuse
from targets.lab.power.sensors import SensorSet
from targets.lab.power.server import start_server


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """Of one device; made by the keeper before it forks the device's first process."""

    cgroup: Cgroup | None = None
    sensors: SensorSet | None = None
    fuse: int = -1  # the connection that `sensors` come through
    lacking: str = ""  # why this machine cannot give all of it

    def connect(self, root: Path) -> None:
        """In the device: put the sensors into its /sys, and the account of its own work into its /proc."""
        if self.sensors:
            mount_sensors(self.fuse, root / "sys", self.sensors.sensors)
            mount_accounting(root)

    def serve(self, truth: Path) -> int | None:
        """In the keeper: start the sensors' server; its pid, for the caller to reap."""
        if self.sensors is None or self.cgroup is None:
            return None
        try:
            return start_server(self.fuse, self.cgroup, self.sensors, truth)
        finally:
            os.close(self.fuse)  # an open one would leave readers waiting after the server's end


def supply(lab: str, device: str, sensors: SensorSet | None) -> Supply:
    """As much of it as this machine can give; a device without power and heat is one still."""
    cgroup = None
    try:
        cgroup = create(lab, device)
        return Supply(cgroup=cgroup, sensors=sensors, fuse=open_fuse() if sensors else -1)
    except EnvironmentFault as fault:
        what = "power and heat" if sensors else "limit of memory"
        return Supply(cgroup=cgroup, lacking=f"no {what}: {fault.message}")
