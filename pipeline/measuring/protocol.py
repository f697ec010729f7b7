"""How a session is run: a start gate, blocks in random interleaved order, until the number is narrow or time is up."""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pipeline.measuring.records import Block, Mode, Order, Session
from pipeline.measuring.statistics import LEAST_PROCESSES, compare, warm_median
from pipeline.measuring.validity import findings
from targets.errors import InputError
from targets.records import BenchRequest, EnergyPlan, Facts, Measurement

_POLL_S = 2.0  # between looks at the temperature: silicon cools in seconds, not in less


class Benched(Protocol):
    """What the protocol needs of a device; `targets.device.Device` has it."""

    def facts(self) -> Facts:
        """What the device is, and how hot."""

    def bench(self, request: BenchRequest, deadline_s: float, files: Mapping[str, Path] | None = None) -> Measurement:
        """One process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure and for how long."""

    requests: Mapping[Order, BenchRequest]
    models: Mapping[Order, str]
    files: Mapping[Order, Mapping[str, Path]]
    mode: Mode = "cool"
    max_s: float = 50.0  # a session that nobody waits for measures nothing
    narrow: float = 0.01  # relative half width of the interval, of the median or of the ratio
    least: int = LEAST_PROCESSES  # processes per model
    most: int = 30
    gate_c: float | None = None  # begin a block no hotter than this; None: no hotter than at the start, and 3 K
    gate_wait_s: float = 30.0
    deadline_s: float = 600.0
    seed: int = 0
    pause_s: float = 0.0  # of the duty-cycled latency; 0: not measured
    pauses: int = 8
    energy: EnergyPlan | None = None  # windows under a power meter, in a process of their own; None: none

    def lasts_s(self) -> float:
        """About how long it takes at most; the power meter's windows come after the time for latency."""
        plan = self.energy
        windows_s = plan.windows * plan.window_s + (plan.windows + 1) * plan.idle_s if plan else 0.0
        return self.max_s + windows_s * len(self.requests)


def run(
    device: Benched,
    plan: Plan,
    told: Callable[[Block], None] = lambda _: None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Session:
    """Measure; what the device raises ends it. The order of the models is drawn anew in every round (ABBA or BAAB)."""
    start = clock()
    facts = device.facts()
    cool_c = plan.gate_c if plan.gate_c is not None else _above(facts.temperature_c)
    blocks: list[Block] = []
    stopped = "the most blocks"
    for label in _order(plan):
        if (reason := _enough(plan, blocks)) or (reason := _late(plan, blocks, clock() - start)):
            stopped = reason
            break
        waited = _cooled(device, cool_c, plan, clock, sleep) if plan.mode == "cool" else 0.0
        began = clock()
        measurement = device.bench(plan.requests[label], plan.deadline_s, plan.files[label])
        block = Block(label=label, start_s=began - start, measurement=measurement, waited_s=waited)
        blocks.append(block)
        told(block)
    done = tuple(blocks)
    duty: dict[Order, Measurement] = {}
    refused = ""
    try:
        if plan.pause_s:
            duty = {label: _duty_cycled(device, plan, label) for label in plan.requests}
    except InputError as error:  # a device without Python; what was measured is not lost for it
        refused = error.message
    metered = {label: _metered(device, plan, label, plan.energy) for label in plan.requests} if plan.energy else {}
    return Session(
        target=facts.target,
        facts=facts,
        mode=plan.mode,
        models=plan.models,
        blocks=done,
        stopped=stopped,
        seconds=clock() - start,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        findings=findings(facts, done, sustained=plan.mode == "sustained"),
        duty=duty,
        pause_s=plan.pause_s,
        duty_refused=refused,
        metered=metered,
    )


def pairs(blocks: "tuple[Block, ...] | list[Block]") -> list[tuple[Block, Block]]:
    """Neighbouring blocks of A and B, as (A, B); each block once."""
    found = []
    for first, second in zip(blocks[::2], blocks[1::2], strict=False):
        if first.label != second.label:
            found.append((first, second) if first.label == "A" else (second, first))
    return found


def _duty_cycled(device: Benched, plan: Plan, label: Order) -> Measurement:
    request = replace(
        plan.requests[label], pause_s=plan.pause_s, warm_min_samples=plan.pauses, warm_max_samples=plan.pauses
    )
    return device.bench(request, plan.deadline_s, plan.files[label])


def _metered(device: Benched, plan: Plan, label: Order, windows: EnergyPlan) -> Measurement:
    """Apart from the blocks: reading a sensor and minutes of load would be in their latency."""
    return device.bench(replace(plan.requests[label], energy=windows), plan.deadline_s, plan.files[label])


def _order(plan: Plan) -> Iterator[Order]:
    """A alone, or rounds of ABBA and BAAB by chance: a linear drift cancels in each, a periodic one by chance."""
    if len(plan.requests) == 1:
        yield from [next(iter(plan.requests))] * plan.most
        return
    draw = random.Random(plan.seed)
    for _ in range(0, plan.most, 2):
        first: Order = draw.choice(("A", "B"))
        second: Order = "B" if first == "A" else "A"
        yield from (first, second, second, first)


def _enough(plan: Plan, blocks: list[Block]) -> str:
    if len(plan.requests) == 1:
        if len(blocks) >= plan.least and plan.mode == "cool":
            half = warm_median(blocks).half_width
            if half <= plan.narrow:
                return f"narrow enough (±{half:.1%})"
        return ""
    found = pairs(blocks)
    if len(blocks) % 4 or len(found) < max(3, plan.least):
        return ""
    half = compare(found, 0.0, seed=plan.seed).ratio.half_width
    return f"narrow enough (±{half:.1%})" if half <= plan.narrow else ""


def _late(plan: Plan, blocks: list[Block], spent_s: float) -> str:
    """Whether another block would outlive the session; the least number of blocks is measured in any case."""
    if len(blocks) < plan.least * len(plan.requests) and spent_s < 3 * plan.max_s:
        return ""
    one_s = spent_s / len(blocks) if blocks else 0.0
    return f"time is up ({plan.max_s:g} s)" if spent_s + one_s > plan.max_s else ""


def _cooled(
    device: Benched, cool_c: float | None, plan: Plan, clock: Callable[[], float], sleep: Callable[[float], None]
) -> float:
    """Wait until the device is as cool as at the beginning; how long that took. After the cap it goes on, hot."""
    if cool_c is None:
        return 0.0
    start = clock()
    while clock() - start < plan.gate_wait_s:
        now = device.facts().temperature_c
        if not isinstance(now, float | int) or now <= cool_c:
            break
        sleep(_POLL_S)
    return clock() - start


def _above(temperature: object) -> float | None:
    return float(temperature) + 3.0 if isinstance(temperature, float | int) else None
