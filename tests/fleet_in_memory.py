"""Devices and a controller that can die at any operation, for the properties of the rollout's own logic.

The device keeps `targets.releases.Releases` in memory; what it really does on a disk is tested with the real ones.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipeline.rollout.release import Release, read_release
from targets.errors import ConnectionLost, Downgrade, Leased, NotStaged, Unreachable
from targets.glance import Glance
from targets.records import Absent, Answer, BenchRequest, Facts, Measurement, TargetSpec
from targets.releases import HookRun, Installed, Sent


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def release_of(name: str, sequence: int, classes: Sequence[str] = ("default",)) -> Release:
    model = {
        "format": "tflite",
        "file": "model.tflite",
        "blob": digest(f"{name} {sequence}"),
        "size_bytes": 1000,
        "golden": [{"inputs": digest("x"), "inputs_bytes": 10, "expected": digest("y"), "expected_bytes": 10}],
        "max_steps": 3,
        "budgets": {"latency_p90_ms": None, "peak_memory_bytes": None},
        "runtime": {},
    }
    raw = {"schema": 1, "name": name, "sequence": sequence, "classes": dict.fromkeys(classes, model)}
    return read_release(json.dumps(raw, sort_keys=True).encode())


class Killed(BaseException):
    """The controller is gone; not even a `finally` of its does anything any more."""


@dataclass
class Fuse:
    """Kills the controller before or after its operation number so-and-so."""

    at: int | None = None
    dead: bool = False
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def operation(self) -> Iterator[None]:
        self._tick()
        yield
        self._tick()

    def _tick(self) -> None:
        with self.lock:
            self.count += 1
            if self.dead or self.count == self.at:
                self.dead = True
                raise Killed


@dataclass
class Board:
    """What survives on a device, and how it behaves."""

    name: str
    device_class: str = "default"
    current: str = ""
    previous: str = ""
    confirmed: str = ""
    staged: dict[str, Release] = field(default_factory=dict)
    floor: dict[str, int] = field(default_factory=dict)
    lease: str = ""
    boot: int = 0
    offline: bool = False
    wrong_when_staged: frozenset[str] = frozenset()  # releases that answer wrong at once
    wrong_when_live: frozenset[str] = frozenset()  # or only when they are in use
    lose_at: set[int] = field(default_factory=set)  # operations whose reply is lost
    operations: int = 0
    switches: list[str] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)  # releases that have answered right while in use


class Link:
    """A connection to a board: `pipeline.rollout.verify.Reached` and `Releases` in one."""

    def __init__(self, board: Board, spec: TargetSpec, fuse: Fuse) -> None:
        with fuse.operation():
            if board.offline:
                raise Unreachable(f"{board.name}: nothing answers", hint="switch it on")
        self.board, self.spec, self._fuse, self.over = board, spec, fuse, False
        self._acting = ""

    @property
    def releases(self) -> "Link":
        return self

    @contextmanager
    def _operation(self, *, changes: bool = False) -> Iterator[None]:
        if self.over:
            raise ConnectionLost(f"{self.board.name}: over", hint="again")
        with self._fuse.operation():
            if changes and self.board.lease and self.board.lease != self._acting:
                raise Leased(f"{self.board.name}: {self.board.lease} has it", hint="wait")
            yield
        self.board.operations += 1
        if self.board.operations in self.board.lose_at:
            self.over = True
            raise ConnectionLost(f"{self.board.name}: the link was lost", hint="try again")

    def close(self) -> None:
        self.over = True

    def glance(self) -> Glance:
        with self._operation():
            board = self.board
            return Glance(
                current=board.current,
                confirmed=board.confirmed,
                keys=(),
                leased=bool(board.lease),
                boot_id=str(board.boot),
            )

    def facts(self) -> Facts:
        with self._operation():
            absent = Absent(reason="none")
            return Facts(
                target=self.board.name,
                arch="aarch64",
                cpu_model="",
                cpu_features=(),
                cpu_count=1,
                os="",
                kernel="",
                libc="",
                python="3.11",
                runtimes={},
                governor=absent,
                free_disk_bytes=10**9,
                total_memory_bytes=absent,
                available_memory_bytes=absent,
                temperature_c=absent,
                meters=(),
            )

    def bench(self, request: BenchRequest, deadline_s: float, files: Mapping[str, Path] | None = None) -> Measurement:
        with self._operation():
            board = self.board
            release = next(key for key, one in board.staged.items() if _blob(one) == request.blob)
            live = board.current == release
            wrong = release in board.wrong_when_staged or (live and release in board.wrong_when_live)
            if live and not wrong:
                board.answered.add(release)
            return Measurement(
                target=board.name,
                blob=request.blob,
                runtime="r",
                runtime_version="1",
                delegate="",
                threads=1,
                load_ns=1,
                first_ns=1,
                warmup_ns=(),
                warm_ns=(1000, 1000, 1000),
                load_peak_rss_bytes=1,
                peak_rss_bytes=1,
                energy=Absent(reason="none"),
                answer=Answer(max_steps=90.0 if wrong else 0.0, finite=True),
            )

    def installed(self) -> Installed:
        with self._operation():
            board = self.board
            return Installed(
                current=board.current,
                previous=board.previous,
                confirmed=board.confirmed,
                releases=tuple(sorted(board.staged)),
                floor=dict(board.floor),
                keys=(),
                free_disk_bytes=10**9,
                boot_id=str(board.boot),
                lease_owner=board.lease,
                lease_left_s=60.0 if board.lease else 0.0,
            )

    def transfer(self, files: Mapping[str, Path], bases: Any = None, progress: Any = None) -> Sent:
        with self._operation(changes=True):
            return Sent(bytes_on_wire=1000, files_sent=len(files), delta_files=0, resumed_bytes=0)

    def stage(self, manifest: bytes, signature: bytes, device_class: str) -> None:
        with self._operation(changes=True):
            release = read_release(manifest)
            self.board.staged[release.id] = release

    def activate(self, release: str, *, allow_downgrade: bool = False) -> None:
        with self._operation(changes=True):
            board = self.board
            if release not in board.staged:
                raise NotStaged(f"{board.name}: not there", hint="stage it")
            found = board.staged[release]
            if found.sequence < board.floor.get(found.name, 0) and not allow_downgrade:
                raise Downgrade(f"{board.name}: older", hint="--allow-downgrade")
            self._switch(release)

    def _switch(self, release: str) -> None:
        board = self.board
        if board.current != release:
            if board.confirmed and board.confirmed == board.current:
                board.previous = board.current
            board.current = release
            board.switches.append(release)

    def revert(self, to: str) -> None:
        with self._operation(changes=True):
            if to and to not in (self.board.previous, self.board.confirmed):
                raise NotStaged(f"{self.board.name}: neither", hint="activate it")
            self._switch(to)

    def confirm(self, release: str) -> None:
        with self._operation(changes=True):
            board = self.board
            if board.current != release:
                raise NotStaged(f"{board.name}: not current", hint="activate it")
            found = board.staged[release]
            board.confirmed = release
            board.floor[found.name] = max(found.sequence, board.floor.get(found.name, 0))

    def prune(self, keep: int) -> int:
        with self._operation(changes=True):
            return 0

    def trust(self, public_key: bytes, signature: bytes = b"") -> None:
        raise AssertionError

    def lease(self, owner: str, seconds: float) -> None:
        with self._operation():
            if self.board.lease not in ("", owner):
                raise Leased(f"{self.board.name}: {self.board.lease} has it", hint="wait")
            self.board.lease = self._acting = owner

    def release_lease(self, owner: str) -> None:
        with self._operation():
            if self.board.lease == owner:
                self.board.lease = ""

    def hook(self, argv: Sequence[str], deadline_s: float) -> HookRun:
        with self._operation(changes=True):
            return HookRun(exit_code=0, output="")


class MortalDatabase:
    """A journal's database whose transactions are operations as well."""

    def __init__(self, database: Any, fuse: Fuse) -> None:
        self._database, self._fuse, self.shown = database, fuse, database.shown

    @contextmanager
    def write(self) -> Iterator[Any]:
        with self._fuse.operation(), self._database.write() as connection:
            yield connection

    def read(self) -> Any:
        return self._database.read()

    def close(self) -> None:
        self._database.close()


def _blob(release: Release) -> str:
    return next(iter(release.classes.values())).blob


def spec_of(board: Board) -> TargetSpec:
    return replace(TargetSpec(name=board.name), device_class=board.device_class)
