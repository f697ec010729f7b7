"""One candidate on one target against the budgets: what speaks against it, and what is not known. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.derived import Energy
from pipeline.fit.records import UNFIT
from pipeline.quality.energy import energy_per_inference
from pipeline.quality.statistics import summarize
from pipeline.quality.validity import findings
from pipeline.quantities import joules, margin, milliseconds, size
from pipeline.records import (
    JUDGED_FIDELITY,
    Artifact,
    Objective,
    Quality,
    Verdict,
    VerdictCode,
)
from targets.records import Absent, Failed, Measurement

# The device may differ from the host by a step or two where kernels fuse differently (onnxruntime#32132).
MAX_ANSWER_STEPS = 3.0
# Three processes on each core are more than shares a machine with a benchmark: this far apart is no other's doing.
_BEYOND_LOAD = 3.0
# Where it never waited for a core: two that share a core's units or the memory take up to half of each other's speed.
_BEYOND_NEIGHBOURS = 2.0
# Where nobody else was there: three times the few percent by which two such processes differ.
_BEYOND_CHANCE = 1.2
LEAST_PROCESSES = 3  # of which the middle one says more than any of them
# Of its time that a benchmark waited for a core, or others had one, from which on that is no rounding.
_DISTURBED_SHARE = 0.05
# Three steps of a float output, divided by the step again, are three and a bit in binary.
_STEP_ROUNDING = 1e-3
_WHERE = "`deploy measure RECIPE --where-different` names the layer"
# 1.00 − 0.98 is 0.02 and a bit in binary: a loss of exactly what is allowed is allowed.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What a candidate may cost; None is not judged. Drops are in each metric's own unit."""

    size_bytes: float | None = None
    latency_p90_ms: float | None = None
    peak_memory_bytes: float | None = None
    energy_j: float | None = None
    max_drop: Mapping[str, float]
    min_fidelity_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that is known of one candidate on one target.

    promised_size: share of the float32 model's size that this kind of quantization is for; None: none is.
    features: of the target's processor, with its architecture among them.
    again: by round, further processes of the candidate: measured because a verdict would have rested on one.
    """

    artifact: Artifact
    quality: Quality
    measured: Measurement | Failed
    promised_size: float | None = None
    features: frozenset[str] = frozenset()
    again: Mapping[int, Measurement] = field(default_factory=dict)


class Fault(NamedTuple):
    """One thing that speaks against a candidate."""

    code: VerdictCode
    text: str


def judge(evidence: Evidence, budgets: Budgets, objective: Objective = "latency") -> Verdict:
    """Judge one candidate on one target. Failures come before doubts: what is proven bad needs no more measuring."""
    failures = [*quality_faults(evidence.quality, budgets)]
    doubts = [
        f"max_drop limits {name}, which nothing measured"
        for name in budgets.max_drop
        if name not in evidence.quality.metrics and not (name in JUDGED_FIDELITY and name in evidence.quality.fidelity)
    ]
    size_bytes = evidence.artifact.size_bytes
    if budgets.size_bytes is not None and size_bytes > budgets.size_bytes:
        over = f"size {size(size_bytes)} is over the budget of {size(budgets.size_bytes)}"
        failures.append(Fault("over-budget", over))
    measured = evidence.measured
    if isinstance(measured, Failed) and measured.code == UNFIT:
        unfit = measured.message + (f" ({measured.hint})" if measured.hint else "")
        failures.append(Fault("does-not-fit", unfit))
    elif isinstance(measured, Failed):
        doubts.append(f"not measured: {measured.message}")
    else:
        _judge_measurement(measured, tuple(evidence.again.values()), budgets, objective, failures, doubts)
    if failures:
        codes = tuple(dict.fromkeys(fault.code for fault in failures))
        return Verdict(verdict="fail", reason="; ".join(fault.text for fault in failures), codes=codes)
    if doubts:
        return Verdict(verdict="inconclusive", reason="; ".join(doubts), codes=("not-measured",))
    return Verdict(verdict="pass", reason="within every budget")


def quality_failures(quality: Quality, budgets: Budgets) -> list[str]:
    """What of its answers breaks the budgets, in words; empty when nothing does."""
    return [fault.text for fault in quality_faults(quality, budgets)]


def quality_faults(quality: Quality, budgets: Budgets) -> list[Fault]:
    """What of its answers breaks the budgets; empty when nothing does."""
    if not quality.fidelity["finite_share"] >= 1:
        share = 1 - quality.fidelity["finite_share"]
        return [Fault("wrong", f"{share:.1%} of its answers are NaN or infinite")]
    failures = []
    fidelity_db = quality.fidelity["sqnr_db"]
    if budgets.min_fidelity_db is not None and not fidelity_db >= budgets.min_fidelity_db:
        wrong = (
            f"wrong: its answers have an SQNR of {fidelity_db:.1f} dB against the float model "
            f"(least: {budgets.min_fidelity_db:g} dB)"
        )
        failures.append(Fault("wrong", wrong))
    for name, largest in budgets.max_drop.items():
        value = quality.metrics.get(name)
        if value is None:
            fidelity = quality.fidelity.get(name) if name in JUDGED_FIDELITY else None
            if fidelity is not None and 1 - fidelity > largest:
                failures.append(Fault("lost-quality", f"{name} {fidelity:.4g} is more than {largest:g} under 1"))
        elif not value.drop <= largest + _ROUNDING:  # a NaN fails
            lost = f"{name} lost {value.drop:.3g} {value.unit}".rstrip() + f", allowed are {largest:g}"
            failures.append(Fault("lost-quality", lost))
    return failures


def _judge_measurement(
    measured: Measurement,
    again: Sequence[Measurement],
    budgets: Budgets,
    objective: Objective,
    failures: list[Fault],
    doubts: list[str],
) -> None:
    if not measured.answer.finite:
        failures.append(Fault("wrong", f"answers NaN or infinity on the device ({_WHERE})"))
    elif not measured.answer.max_steps <= MAX_ANSWER_STEPS + _STEP_ROUNDING:
        differs = (
            f"answers differently on the device: {measured.answer.max_steps:.3g} quantization steps from the host "
            f"(tolerated: {MAX_ANSWER_STEPS:g}; {_WHERE})"
        )
        failures.append(Fault("differs-on-device", differs))
    if emulated := measured.conditions.get("emulated"):
        # An emulator's speed and size say nothing of the board it looks like: neither held nor broken.
        asked = {
            "latency": budgets.latency_p90_ms,
            "peak memory": budgets.peak_memory_bytes,
            "energy": budgets.energy_j,
        }
        doubts += [f"{name} cannot be judged here: {emulated}" for name, limit in asked.items() if limit is not None]
    else:
        if budgets.latency_p90_ms is not None:
            _judge_latency([measured, *again], budgets.latency_p90_ms, failures, doubts)
        _judge_cost(measured, budgets, objective, failures, doubts)
        doubts += [f"{found.reason}: {found.remedy}" for found in findings(measured) if found.blocking]


def _judge_latency(processes: Sequence[Measurement], limit_ms: float, failures: list[Fault], doubts: list[str]) -> None:
    """By the process in the middle. One process over the budget is no proof, nor is one that others kept waiting."""
    p90 = summarize(middle(processes).warm_ns).p90
    if p90 <= limit_ms:
        return
    over = f"p90 latency {milliseconds(p90)} is over the budget of {milliseconds(limit_ms)}"
    waited = min(_waited(each) for each in processes)
    # What the fastest run of all would have taken without waiting.
    undisturbed_ms = min(min(each.warm_ns) * (1 - _waited(each)) for each in processes) / 1e6
    if waited > _DISTURBED_SHARE and undisturbed_ms <= limit_ms:
        doubts.append(f"{over}, but it waited {waited:.0%} of its time for a CPU that others had: end them, run again")
    elif len(processes) < LEAST_PROCESSES and undisturbed_ms <= beyond_doubt(*processes) * limit_ms:
        doubts.append(f"{over} in {len(processes)} of {LEAST_PROCESSES} processes; the others failed: run again")
    else:
        failures.append(Fault("over-budget", over))


def beyond_doubt(*processes: Measurement) -> float:
    """The ratio of latencies from which on neither chance nor what else ran can have made it, by what they observed."""

    def is_small(name: str) -> bool:
        shares = [each.conditions.get(name) for each in processes]
        return all(share is not None and _real(share) <= _DISTURBED_SHARE for share in shares)

    if not is_small("cpu_wait_share"):
        return _BEYOND_LOAD
    return _BEYOND_CHANCE if is_small("other_cpu_share") else _BEYOND_NEIGHBOURS


def middle(processes: Sequence[Measurement]) -> Measurement:
    """The process in the middle, by 90th percentile; of an even number the quicker of both."""
    return sorted(processes, key=lambda each: summarize(each.warm_ns).p90)[(len(processes) - 1) // 2]


def _waited(measured: Measurement) -> float:
    """Share of its warm runs' time that a benchmark was ready to run and had no core; 0 where nobody told."""
    return min(1.0, _real(measured.conditions.get("cpu_wait_share", "")))


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _judge_cost(
    measured: Measurement, budgets: Budgets, objective: Objective, failures: list[Fault], doubts: list[str]
) -> None:
    peak = measured.peak_rss_bytes
    if isinstance(peak, Absent):
        if budgets.peak_memory_bytes is not None or objective == "memory":
            doubts.append(f"peak memory not measured: {peak.reason}")
    elif budgets.peak_memory_bytes is not None and peak > budgets.peak_memory_bytes:
        over = f"peak memory {size(peak)} is over the budget of {size(budgets.peak_memory_bytes)}"
        failures.append(Fault("over-budget", over))
    if budgets.energy_j is not None or objective == "energy":
        _judge_energy(energy_per_inference(measured), budgets.energy_j, failures, doubts)


def _judge_energy(energy: Energy | Absent, budget_j: float | None, failures: list[Fault], doubts: list[str]) -> None:
    """By gross energy, whose uncertainty is the meter's too: a budget inside of it is neither held nor broken."""
    if isinstance(energy, Absent):
        doubts.append(f"energy not measured: {energy.reason}")
        return
    doubts += [f"energy cannot be judged: {doubt}" for doubt in energy.doubts]
    if budget_j is None or energy.doubts:
        return
    text = f"{joules(energy.gross_j)} {margin(energy.gross_error_j, energy.gross_j)} per inference"
    if energy.gross_j - energy.gross_error_j > budget_j:
        failures.append(Fault("over-budget", f"{text} are over the budget of {joules(budget_j)}"))
    elif energy.gross_j + energy.gross_error_j > budget_j:
        doubts.append(f"{text} cannot be told from the budget of {joules(budget_j)}: raise it, or use a better meter")
