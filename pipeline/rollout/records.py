"""What a rollout is made of: frozen data, no I/O, no behaviour."""

from dataclasses import dataclass, field
from typing import Literal

from pipeline.rollout.pace import Basis
from targets.glance import Glance
from targets.records import Absent, Facts, Failed, TargetSpec
from targets.releases import Installed

StepName = Literal[
    "trust",
    "transfer",
    "stage",
    "verify",
    "compare",
    "activate",
    "hook",
    "health",
    "check",
    "confirm",
    "prune",
    "revert",
    "check-previous",
]
MemberState = Literal[
    "waiting",  # its wave has not begun
    "active",  # being worked on, or was when the controller died
    "reverting",  # the release was refused there after the switch; on the way back, or was when the controller died
    "unchanged",  # had the release already, confirmed
    "confirmed",  # has it now, and has answered right with it
    "pending",  # could not be reached, nothing was switched there; `deploy reconcile` goes on
    "failed",  # refused before anything was switched there
    "reverted",  # was switched, then back
    "lost",  # contact was lost after the switch and before the answer: it counts as a failure until it is seen again
    "pinned",  # kept out by `deploy pin`
]
RolloutKind = Literal["push", "rollback", "reconcile"]
RolloutState = Literal["running", "undoing", "done", "stopped"]
OnFailure = Literal["stop", "rollback-wave", "rollback-all"]

# How a device's attempt counts when a wave is judged.
GOOD: frozenset[MemberState] = frozenset({"confirmed", "unchanged"})
BAD: frozenset[MemberState] = frozenset({"failed", "reverted", "lost"})
UNFINISHED: frozenset[MemberState] = frozenset({"active", "reverting"})

# Code of a device of a rollback that has no release to go back to.
NOTHING_BEFORE = "none-before"

# Codes of failures that say something of the release rather than of the device.
ANSWER, LATENCY, MEMORY, HEALTH, FIT = "answer", "latency", "memory", "health", "fit"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaveSize:
    """How far a wave goes, all before it included: a count, or a share of the devices."""

    count: int = 0
    share: float = 0.0  # used when count is 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What `rollout:` of deploy.yaml says."""

    waves: tuple[WaveSize, ...]
    soak_s: float
    max_failures: float
    error_budget: float
    parallel: int
    keep: int
    on_failure: OnFailure
    retries: int
    retry_s: float
    warm_s: float
    p90_margin: float
    compare_blocks: int
    compare_devices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was found when the device was looked at; `fault` instead when it could not be.

    `glance` alone: it has what it is to have, so that nothing more was asked.
    """

    spec: TargetSpec
    facts: Facts | None = None
    installed: Installed | None = None
    glance: Glance | None = None
    fault: Failed | None = None
    transient: bool = False  # whether the fault may be over another time


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """What is to be done on one device."""

    device: str
    device_class: str
    group: str  # devices of a group answer for each other: the same model on the same kind of processor
    installed: str
    state: MemberState
    steps: tuple[StepName, ...] = ()
    bytes_to_send: int = 0  # at most: what is there already, deltas and compression make it less
    golden_bytes: int = 0  # of these, the samples and answers by which the device proves itself
    duration_s: float | Absent = field(default=Absent(reason="nothing to do"))
    basis: Basis = "guess"  # what the duration rests on: the weakest of its steps
    reason: str = ""
    hint: str = ""
    code: str = ""
    note: str = ""  # of its keys: what it is to trust, or that it takes unsigned releases


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """A release, the devices, and the waves in which they would get it if all goes well."""

    release: str
    name: str
    sequence: int
    devices: tuple[DevicePlan, ...]
    waves: tuple[tuple[str, ...], ...]
    bytes_to_send: int
    duration_s: float
    golden_bytes: int = 0
    basis: Basis = "guess"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The p90 of one block with the release before and one with the new one, beside each other on one device."""

    before_ms: float
    after_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One device's part in a rollout, as the journal has it."""

    device: str
    device_class: str
    group: str
    state: MemberState
    wave: int = 0  # 0: none yet
    installed: str = ""  # what it had before
    code: str = ""
    reason: str = ""
    hint: str = ""
    bytes_on_wire: int = 0
    pairs: tuple[Pair, ...] = ()
    boot_id: str = ""  # when it was confirmed
    since_s: float = 0.0  # Unix time


@dataclass(frozen=True, slots=True, kw_only=True)
class GateVerdict:
    """Whether the next wave may begin, and what was looked at."""

    passed: bool
    reasons: tuple[str, ...]  # why not
    notes: tuple[str, ...] = ()  # what could not be told, and what was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """A wave that was judged."""

    number: int
    devices: tuple[str, ...]
    verdict: GateVerdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A rollout as the journal has it."""

    id: str
    kind: RolloutKind
    release: str
    name: str
    state: RolloutState
    reason: str
    policy: Policy
    allow_downgrade: bool
    owner: str
    began_s: float
    ended_s: float | Absent


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The journal believes one thing and the device says another; the device is right."""

    device: str
    journal: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a rollout came to."""

    rollout: str
    kind: RolloutKind
    release: str
    name: str
    state: RolloutState
    reason: str
    members: tuple[Member, ...]
    waves: tuple[Wave, ...]
    differences: tuple[Difference, ...] = ()
