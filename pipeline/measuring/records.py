"""What a session of measuring found. Everything is recomputed from the blocks, which keep every raw sample."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from targets.records import Absent, Facts, Measurement, Profile

Mode = Literal["cool", "sustained"]
Order = Literal["A", "B"]
Doubt = Literal[
    "throttled",
    "under-voltage",
    "background-load",
    "clock-jump",
    "drifting",
    "unstable",
    "too-few-samples",
    "emulated",
    "power-source-changed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One benchmark in a process of its own."""

    label: Order
    start_s: float  # since the session began
    measurement: Measurement
    waited_s: float = 0.0  # at the start gate, for the device to cool or calm down


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval, over `processes` independent processes."""

    value: float
    low: float
    high: float
    processes: int
    samples: int

    @property
    def half_width(self) -> float:
        """Half of the interval, relative to the value."""
        return (self.high - self.low) / 2 / self.value if self.value else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Why a number may not be trusted, and what to do about it."""

    doubt: Doubt
    reason: str
    remedy: str
    blocking: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """The warm latency of one model in milliseconds."""

    median: Estimate
    p90: float
    p99: float | Absent
    p99_bound: float | Absent  # not exceeded by the true p99, with 99 % confidence
    within_cv: float  # variation of samples inside a process: standard deviation over mean
    between_cv: float | Absent  # variation of the processes' medians
    load_ms: float
    first_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """B against A, block by block."""

    ratio: Estimate  # of B's latency to A's
    margin: float  # how much slower B may be, relative
    smallest_detectable: float  # relative difference that this many blocks would have shown with 80 % chance
    verdict: Literal["not-slower", "slower", "undecided"]
    faster: bool  # whether B is faster, beyond doubt
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Measuring one model, or two against each other, on one device."""

    target: str
    facts: Facts
    mode: Mode
    models: Mapping[Order, str]  # label → what it is
    blocks: tuple[Block, ...]
    stopped: str  # why it ended: narrow enough, or which cap was reached
    seconds: float
    when: str  # ISO 8601, UTC, of the host
    findings: tuple[Finding, ...] = ()
    duty: Mapping[Order, Measurement] = field(default_factory=dict)  # one process with `pause_s` before every run
    pause_s: float = 0.0
    duty_refused: str = ""  # why the device cannot pause between runs; then there is no `duty`
    metered: Mapping[Order, Measurement] = field(default_factory=dict)  # one process under the power meter, if asked
    # What an arena holds at once, by the model's shapes, since runtimes do not tell theirs; without a label: not known.
    activation_bytes: Mapping[Order, int] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)  # by model, with the float one to compare with
    kind: Literal["session"] = "session"

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against these numbers."""
        return not any(finding.blocking for finding in self.findings)

    def of(self, label: Order) -> tuple[Block, ...]:
        """The blocks of one model, in the order of time."""
        return tuple(block for block in self.blocks if block.label == label)
