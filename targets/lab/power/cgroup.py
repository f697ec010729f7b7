"""One cgroup per device: the CPU time it really used, and a quota that really slows it down.

Cgroups outlive every process, so theirs are the only names that a killed lab leaves on the machine: they carry the name
of the lab, and `remove_all` finds them wherever they are. Version 1 (cpu and cpuacct) and version 2 are supported.
"""

import errno
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from targets.errors import EnvironmentFault

# A slow clock is smooth; the shorter the period, the smoother the quota. The kernel enforces it by its own 4 ms tick.
PERIOD_US = 20_000
_LEAST_QUOTA_US = 1_000  # the kernel refuses less
_EMPTY_S = 5.0  # killed processes leave their cgroup within some 10 ms
_CONTROLLERS = ("cpu", "cpuacct", "memory")
_HINT = "devices start without power and heat where cgroups have no `cpu` controller"


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTime:
    """CPU seconds since the cgroup was made."""

    used_s: float
    withheld_s: float  # what the quota has kept from running, each core for itself


class Cgroup(Protocol):
    """A cgroup of one device."""

    def enter(self) -> None:
        """Put the calling process in; its children follow."""

    def cpu_time(self) -> CpuTime: ...

    def limit(self, cores: float | None) -> None:
        """Let all processes in it use this many cores together; None: as many as there are."""

    def remove(self) -> None:
        """Remove it; waits a moment for killed processes to leave. Raises EnvironmentFault when some stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupV1:
    """Folders in the hierarchies of `cpu` and of `cpuacct`, which are often one and the same, and of `memory`."""

    cpu: Path
    cpuacct: Path
    memory: Path | None = None

    @property
    def folders(self) -> set[Path]:
        return {self.cpu, self.cpuacct} | ({self.memory} if self.memory else set())

    def enter(self) -> None:
        for folder in self.folders:
            _write(folder / "cgroup.procs", 0)

    def cpu_time(self) -> CpuTime:
        used_ns = int((self.cpuacct / "cpuacct.usage").read_text(encoding="ascii"))
        return CpuTime(used_s=used_ns / 1e9, withheld_s=_fields(self.cpu / "cpu.stat")["throttled_time"] / 1e9)

    def limit(self, cores: float | None) -> None:
        _write(self.cpu / "cpu.cfs_period_us", PERIOD_US)
        _write(self.cpu / "cpu.cfs_quota_us", -1 if cores is None else quota_us(cores))

    def remove(self) -> None:
        for folder in self.folders:
            _remove_folder(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupV2:
    """A folder of the unified hierarchy, in a parent that gives its children the `cpu` controller."""

    folder: Path

    def enter(self) -> None:
        _write(self.folder / "cgroup.procs", 0)

    def cpu_time(self) -> CpuTime:
        fields = _fields(self.folder / "cpu.stat")
        # Without the controller there is no quota, and nothing withheld.
        return CpuTime(used_s=fields["usage_usec"] / 1e6, withheld_s=fields.get("throttled_usec", 0) / 1e6)

    def limit(self, cores: float | None) -> None:
        _write(self.folder / "cpu.max", f"{'max' if cores is None else quota_us(cores)} {PERIOD_US}")

    def remove(self) -> None:
        _remove_folder(self.folder)


def quota_us(cores: float) -> int:
    """Microseconds of CPU time in each period."""
    return max(_LEAST_QUOTA_US, round(cores * PERIOD_US))


def _write(path: Path, value: object) -> None:
    path.write_text(f"{value}\n", encoding="ascii")


def _fields(path: Path) -> dict[str, int]:
    """A file with lines of `name number`."""
    lines = path.read_text(encoding="ascii").splitlines()
    return {name: int(number) for name, number in (line.split() for line in lines)}


def _remove_folder(folder: Path) -> None:
    end = time.monotonic() + _EMPTY_S
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as fault:
            if fault.errno != errno.EBUSY or time.monotonic() > end:
                reason = f"cgroup {folder} cannot be removed: {fault.strerror}"
                raise EnvironmentFault(reason, hint=f"processes in it: see {folder}/cgroup.procs") from fault
            time.sleep(0.01)
        else:
            return


# --- where to make them -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchies:
    """The mounted cgroup hierarchies as a process sees them."""

    v1: dict[str, Path]  # controller -> where it is mounted
    v2: Path | None
    own: dict[str, Path]  # controller, or "" for version 2 -> the folder of the process itself

    def mounted(self) -> set[Path]:
        """Every mount that can hold a device's cgroup."""
        found = {self.v1[name] for name in _CONTROLLERS if name in self.v1}
        return found | ({self.v2} if self.v2 else set())


def hierarchies(mountinfo: str, cgroups: str) -> Hierarchies:
    """From the texts of /proc/self/mountinfo and /proc/self/cgroup."""
    v1: dict[str, tuple[Path, str]] = {}
    v2: tuple[Path, str] | None = None
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        root, point = (_unescaped(field) for field in fields.split()[3:5])
        kind, _, options = tail.split(maxsplit=2)
        if kind == "cgroup2" and v2 is None:
            v2 = Path(point), root
        elif kind == "cgroup":
            for option in options.split(","):
                v1.setdefault(option, (Path(point), root))
    own = {}
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            place = v1.get(controller) if controller else v2
            if place:
                own[controller] = _inside(*place, path)
    return Hierarchies(v1={name: point for name, (point, _) in v1.items()}, v2=v2[0] if v2 else None, own=own)


def _unescaped(field: str) -> str:
    """A path of mountinfo, in which blanks are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _inside(point: Path, root: str, path: str) -> Path:
    """Where a cgroup's path is below a mount that may show only the part of the hierarchy below `root`."""
    if path == root or path.startswith(root.rstrip("/") + "/"):
        return point / path[len(root) :].lstrip("/")
    return point  # outside of what a container is shown


def _ours() -> Hierarchies:
    return hierarchies(
        Path("/proc/self/mountinfo").read_text(encoding="utf-8"), Path("/proc/self/cgroup").read_text(encoding="utf-8")
    )


def _prefix(lab: str) -> str:
    return f"edge-deploy-lab.{lab}."  # a lab's name has no dot: no lab's names begin with another's


def create(lab: str, device: str, seen: Hierarchies | None = None) -> Cgroup:
    """A new cgroup for one device, below the caller's own where the kernel admits that; needs root.

    Raises EnvironmentFault, with the reason, where there is no way to count or to limit CPU time.
    """
    seen = seen or _ours()
    name = _prefix(lab) + device
    try:
        if {"cpu", "cpuacct"} <= seen.own.keys():
            v1 = CgroupV1(**{key: seen.own[key] / name for key in _CONTROLLERS if key in seen.own})
            for folder in v1.folders:
                folder.mkdir(exist_ok=True)
            return v1
        parent = _parent_with_cpu(seen)
        (parent / name).mkdir(exist_ok=True)
        return CgroupV2(folder=parent / name)
    except OSError as fault:
        raise EnvironmentFault(f"no cgroup for {device}: {fault}", hint=_HINT) from fault


def _parent_with_cpu(seen: Hierarchies) -> Path:
    """The nearest cgroup above the caller whose children have the `cpu` controller.

    Seldom the caller's own: in version 2 a cgroup that has processes cannot hand controllers on to children. Only the
    root can, and is asked to when nobody else does. With `cpu` comes `memory`, wherever somebody already handed it on.
    """
    if seen.v2 is None or "" not in seen.own:
        missing = " and ".join(sorted({"cpu", "cpuacct"} - seen.own.keys()))
        raise EnvironmentFault(f"no cgroup hierarchy with {missing} is mounted", hint=_HINT)
    own = seen.own[""]
    for folder in (own, *own.parents):
        if not folder.is_relative_to(seen.v2):
            break
        if "cpu" in (folder / "cgroup.subtree_control").read_text(encoding="ascii").split():
            return folder
    if "cpu" not in (seen.v2 / "cgroup.controllers").read_text(encoding="ascii").split():
        raise EnvironmentFault("this kernel or container has no `cpu` controller in cgroup version 2", hint=_HINT)
    try:
        _write(seen.v2 / "cgroup.subtree_control", "+cpu")
    except OSError as fault:
        reason = f"cgroup version 2 does not hand its `cpu` controller on: {fault.strerror}"
        raise EnvironmentFault(reason, hint=_HINT) from fault
    return seen.v2


def limit_memory(lab: str, device: str, size_bytes: int | None) -> None:
    """Let all processes of a device have so much memory together; beyond it the kernel kills one. None: no limit.

    Raises EnvironmentFault where that cannot be, or where the device uses more already.
    """
    for folder in left_of(lab):
        for name, without in (("memory.limit_in_bytes", "-1"), ("memory.max", "max")):
            if folder.name == _prefix(lab) + device and (folder / name).exists():
                try:
                    _write(folder / name, without if size_bytes is None else size_bytes)
                except OSError as fault:
                    reason = f"{device} cannot be given so little memory: {fault.strerror}"
                    raise EnvironmentFault(reason, hint="it uses more already; say a larger size") from fault
                return
    if size_bytes is not None:
        raise EnvironmentFault(f"{device} has no cgroup with a `memory` controller", hint=_HINT)


def entering(lab: str, device: str, command: Sequence[str]) -> list[str]:
    """The command line that runs a command in a device's cgroup, so that it costs the device what it costs."""
    folders = [str(folder) for folder in left_of(lab) if folder.name == _prefix(lab) + device]
    script = 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs"; shift; done; shift; exec "$@"'
    return ["/bin/sh", "-c", script, "sh", *folders, "--", *command] if folders else list(command)


def left_of(lab: str, seen: Hierarchies | None = None) -> Iterator[Path]:
    """Every folder of a cgroup of this lab, whoever made it and wherever it ran."""
    for mounted in (seen or _ours()).mounted():
        for above, names, _ in os.walk(mounted):
            yield from (Path(above) / name for name in names if name.startswith(_prefix(lab)))


def remove_all(lab: str, seen: Hierarchies | None = None) -> None:
    """Remove what a lab has left behind, once its processes were killed; raises EnvironmentFault."""
    for folder in set(left_of(lab, seen)):
        _remove_folder(folder)
