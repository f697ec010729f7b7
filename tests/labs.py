"""What the tests of the device lab share: starting one where that is possible, and what must not be left of it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sshd import processes_with

from targets.device import Device, connect
from targets.errors import DeployError
from targets.lab.doctor import findings
from targets.lab.lab import Wanted, down, up
from targets.lab.power.cgroup import left_of
from targets.lab.state import LabState, lab_folder, load_lab
from targets.records import TargetSpec


def require_lab(*kinds: str) -> None:
    """Skip where devices of these kinds cannot run; in CI that is a failure, or nobody would notice."""
    missing = [finding.missing for kind in kinds for finding in findings(kind)]
    if not missing:
        return
    reason = f"no device lab here: missing {', '.join(missing)}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def running(wanted: Wanted, name: str) -> Iterator[LabState]:
    """A lab of the test's own; a test may have ended it itself."""
    try:
        yield up(name, wanted)
    finally:
        if lab_folder(name).exists():
            down(name)


def prefer(lab: str) -> None:
    """Let the device go before others of this machine, but not before ourselves, or we would measure how busy it is."""
    for folder in left_of(lab):
        for name, more in (("cpu.shares", "20000"), ("cpu.weight", "1000")):  # 1024 and 100 are the usual
            if (folder / name).exists():
                (folder / name).write_text(more)


def namespaces_of(pid: int) -> set[str]:
    """The namespaces of a process, such as net:[4026531833]; empty when it has ended."""
    found = set()
    for kind in ("net", "mnt", "pid", "uts", "ipc"):
        try:
            found.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
        except OSError:
            return set()
    return found


def lab_namespaces(name: str) -> set[str]:
    """Every namespace that a running lab has made."""
    lab = load_lab(name)
    made = [namespaces_of(process.pid) for process in (lab.keeper, *lab.processes.values())]
    return set().union(*made) - namespaces_of(os.getpid())


def all_namespaces() -> set[str]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return set().union(*(namespaces_of(pid) for pid in pids))


def surroundings() -> dict[str, set[str]]:
    """What a lab must leave as it was on the machine itself, also while it runs."""
    return {
        "mounts": set(Path("/proc/self/mounts").read_text().splitlines()),
        "links": {path.name for path in Path("/sys/class/net").iterdir()},
        "routes": set(Path("/proc/net/route").read_text().splitlines()),
        "named namespaces": {str(path) for path in Path("/run/netns").glob("*")},
    }


def remains(name: str, made: set[str]) -> list[str]:
    """What is left of a lab that is down, given the namespaces that it had made."""
    left = [str(path) for path in (lab_folder(name),) if path.exists()]
    left += sorted(made & all_namespaces())
    left += [str(folder) for folder in left_of(name)]
    return left + [f"process {pid}" for pid in processes_with(f"targets.lab.keeper {name}")]


def reconnected(spec: TargetSpec, state: Path, within_s: float = 60.0) -> Device:
    """Connect to a device that is coming back; what is not transient is raised at once."""
    end = time.monotonic() + within_s
    while True:
        try:
            return connect(spec, state=state)
        except DeployError as error:
            if not error.transient or time.monotonic() > end:
                raise
            time.sleep(0.2)
