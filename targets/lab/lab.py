"""Start, look at and take down a lab: what the command line and the tests use."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from targets.errors import EnvironmentFault, UsageError
from targets.lab.doctor import require
from targets.lab.identity import new_key
from targets.lab.kind import Kind, Say
from targets.lab.kinds import KINDS, load_kind
from targets.lab.power.cgroup import entering, remove_all
from targets.lab.profiles import profile
from targets.lab.state import LabDevice, LabState, ProcessId, lab_folder, load_lab, running_lab

MAX_DEVICES = 1000  # a bridge has 1024 ports
LEAST_DISK_BYTES = 1_000_000  # an SSH host needs its home folder, a board its configuration
START_S = 120.0
_REGISTERED_S = 1.5  # a keeper takes 0.1 s to its first note in lab.json
_GONE_S = 10.0  # the kernel needs 0.1 s for the processes of 100 devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `lab up` was asked for."""

    counts: Mapping[str, int]  # kind → so many devices
    profiles: tuple[str, ...] = ()  # what devices look like, those of a kind taken in turn; none: as the kind says
    disk_bytes: int = 256 * 1024 * 1024


def up(name: str, wanted: Wanted, say: Say = lambda _: None, *, bound: bool = False) -> LabState:
    """Start a lab; it runs until `down`, or if `bound` until this process ends. Returns when every device answers.

    Raises EnvironmentFault when it cannot run here, runs already, or a device did not start; UsageError for a name or
    number that cannot be.
    """
    kinds = [KINDS[kind] for kind, number in wanted.counts.items() if number and kind in KINDS]
    require(*(kind.name for kind in kinds))
    folder = lab_folder(name)
    devices = plan(wanted)
    if folder.exists():
        _refuse_running(name)
        down(name)  # what a crash has left
    with ThreadPoolExecutor() as pool:  # most of it is waiting for the network
        resources = dict(
            zip((kind.name for kind in kinds), pool.map(lambda kind: kind.prepare(say), kinds), strict=True)
        )
    try:
        folder.mkdir(parents=True, mode=0o755)
    except FileExistsError:
        raise EnvironmentFault(f"lab {name!r} is just being started", hint="start another with --name") from None
    try:
        authorized = new_key(folder / "identity", f"lab-{name}")
        _give_to_user(folder / "identity")
        for device in devices:
            load_kind(device.kind).write_folder(folder / device.name, device, authorized)
        ours = ProcessId.of(os.getpid())  # until the keeper writes its own
        LabState(name=name, keeper=ours, devices=devices, processes={}, resources=resources).save()
        say(f"starting {len(devices)} device" + "s" * (len(devices) != 1))
        _start_keeper(name, bound)
    except BaseException:
        down(name)
        raise
    return running_lab(name)


def _give_to_user(identity: Path) -> None:
    """Let who called sudo log in as well, or only root could run `deploy run --targets-from`."""
    if user := os.environ.get("SUDO_UID"):
        os.chown(identity, int(user), int(os.environ.get("SUDO_GID", user)))


def plan(wanted: Wanted) -> tuple[LabDevice, ...]:
    """The devices, with the addresses they will have; raises UsageError."""
    if not LEAST_DISK_BYTES <= wanted.disk_bytes <= _memory_bytes():
        hint = f"between {LEAST_DISK_BYTES // 1_000_000} MB and this machine's memory, as --disk '256 MB'"
        raise UsageError(f"a disk of {wanted.disk_bytes:,} bytes cannot be kept in memory", hint=hint)
    if not 0 < sum(wanted.counts.values()) <= MAX_DEVICES:
        raise UsageError(f"a lab has 1 to {MAX_DEVICES} devices", hint="deploy lab up --ssh 3")
    kinds = [load_kind(kind) for kind in wanted.counts]
    for name in wanted.profiles:
        if profile(name)["kind"] not in wanted.counts:
            hint = f"add --{profile(name)['kind']} 1"
            raise UsageError(f"{name}: none of the devices asked for can look like it", hint=hint)
    named = [
        (kind, board, f"{board or kind.stem}-{number}")
        for kind in kinds
        for number, board in enumerate(_profiles(kind, wanted))
    ]
    return tuple(
        LabDevice(
            name=name,
            kind=kind.name,
            service=kind.service,
            address=f"10.99.{index // 250}.{index % 250 + 2}",
            port=0,  # the keeper takes a free one
            python=kind.python,
            disk_bytes=wanted.disk_bytes,
            profile=board,
        )
        for index, (kind, board, name) in enumerate(named)
    )


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _profiles(kind: Kind, wanted: Wanted) -> Iterator[str]:
    asked = [name for name in wanted.profiles if profile(name)["kind"] == kind.name]
    return islice(cycle(asked or [kind.profile]), wanted.counts[kind.name])


def _refuse_running(name: str) -> None:
    try:
        running_lab(name)
    except EnvironmentFault:
        return
    raise EnvironmentFault(
        f"lab {name!r} is running", hint=f"deploy lab down --name {name}, or start another with --name"
    )


def _start_keeper(name: str, bound: bool) -> None:
    """Start the keeper, apart from this terminal, and wait for its word."""
    argv = [sys.executable, "-I", "-m", "targets.lab.keeper", name, *(["--bound"] if bound else [])]
    with (lab_folder(name) / "keeper.log").open("wb") as log:
        keeper = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd="/", start_new_session=True
        )
    assert keeper.stdout
    with keeper.stdout:
        said = keeper.stdout.readline().decode("utf-8", "replace").strip()
    if said == "ready":
        keeper.returncode = 0  # it outlives us on purpose; nobody is to wait for it
        return
    keeper.kill()
    keeper.wait()
    log_tail = (lab_folder(name) / "keeper.log").read_text(encoding="utf-8", errors="replace").strip()[-1000:]
    raise EnvironmentFault(f"the lab did not start: {said or log_tail or 'no reason given'}", hint="deploy lab doctor")


def down(name: str) -> None:
    """End a lab, or clear away what a crash has left of it; nothing of it remains.

    Raises EnvironmentFault without root, when there is no such lab, or when a process of it cannot be killed (it waits
    for a disk, say).
    """
    folder = lab_folder(name)
    if os.geteuid() != 0:
        raise EnvironmentFault("only root may end a lab", hint="use sudo")
    ours = ProcessId.of(os.getpid())
    try:
        lab = _settled(name, ours)
    except EnvironmentFault:
        if not folder.exists():
            raise
        remove_all(name)
        shutil.rmtree(folder)  # it never got as far as starting anything
        return
    left = [process for process in (lab.keeper, *lab.processes.values()) if process != ours]
    for process in left:
        process.signal(signal.SIGKILL)
    end = time.monotonic() + _GONE_S
    while left := [process for process in left if not _has_ended(process)]:
        if time.monotonic() > end:
            pids = ", ".join(str(process.pid) for process in left)
            raise EnvironmentFault(f"processes {pids} of lab {name!r} do not end", hint="reboot this machine")
        time.sleep(0.01)
    remove_all(name)
    shutil.rmtree(folder)


def _settled(name: str, ours: ProcessId) -> LabState:
    """The lab, with its keeper registered if one is only just starting: its starter may have been killed meanwhile."""
    lab, end = load_lab(name), time.monotonic() + _REGISTERED_S
    while lab.keeper != ours and not lab.devices[0].port and time.monotonic() < end:
        time.sleep(0.02)
        lab = load_lab(name)
    return lab


def _has_ended(process: ProcessId) -> bool:
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)  # when the same program has started the lab
    return not process.alive()


def ask(lab: LabState, request: Mapping[str, Any]) -> Any:
    """One request to the keeper; raises EnvironmentFault with its reason when it refuses or does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(START_S)
            sock.connect(str(lab.folder / "control"))
            sock.sendall(json.dumps(request).encode() + b"\n")
            with sock.makefile("rb") as file:
                reply = json.loads(file.readline())
    except (OSError, ValueError) as fault:
        hint = "use sudo" if isinstance(fault, PermissionError) else f"deploy lab down --name {lab.name}"
        raise EnvironmentFault(f"lab {lab.name!r} does not answer: {fault}", hint=hint) from fault
    if "error" in reply:
        raise EnvironmentFault(f"lab {lab.name!r}: {reply['error']}", hint="deploy lab status")
    return reply["ok"]


def command_inside(lab: LabState, name: str, command: Sequence[str]) -> list[str]:
    """The command line that runs a command as root on a device, without SSH; raises EnvironmentFault, UsageError."""
    device = lab.device(name)
    if os.geteuid() != 0:
        raise EnvironmentFault(f"only root may reach into {name}", hint="use sudo")
    process = lab.processes.get(name)
    if process is None or not process.alive():
        raise EnvironmentFault(f"{name} is not running", hint=f"deploy lab fault {name} reboot starts it again")
    return entering(lab.name, name, load_kind(device.kind).command(lab, device, process, command))
