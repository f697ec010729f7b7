"""Whether a session's numbers may be trusted: pure, from what was observed while they were taken."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import stats

from pipeline.measuring.records import Block, Finding
from pipeline.measuring.statistics import LEAST_PROCESSES, process_medians_ms
from targets.records import Facts

BACKGROUND_SHARE = 0.05  # of one CPU's time, taken by others while the benchmark ran
CLOCK_STEP_MS = 20.0  # more than NTP slews in a block of seconds
DRIFT_SHARE = 0.03  # from the first to the last block
UNSTABLE_CV = 0.10  # of the processes' medians; executorch#8603 saw 17.8 %
FREQUENCY_SHARE = 0.05  # of the highest frequency seen
_CHANCE = 0.01
# Bits of `vcgencmd get_throttled`: now, and since boot 16 higher.
_UNDER_VOLTAGE, _SLOWED = 0x1, 0xE


def findings(facts: Facts, blocks: Sequence[Block], *, sustained: bool = False) -> tuple[Finding, ...]:
    """Every doubt about these blocks, worst first. In sustained mode being slow when hot is the result, no doubt."""
    found = [
        *_emulated(facts),
        *_throttled(blocks, sustained),
        *_background(blocks),
        *_clock(blocks),
        *_few(blocks),
        *([] if sustained else _drifting(blocks)),
        *_unstable(blocks),
    ]
    return tuple(sorted(found, key=lambda finding: not finding.blocking))


def _emulated(facts: Facts) -> Iterator[Finding]:
    if facts.emulated:
        yield Finding(
            doubt="emulated",
            reason=f"latencies are an emulator's ({facts.emulated})",
            remedy="compare them with others of this very device only; measure on the real board",
            blocking=True,
        )


def _throttled(blocks: Sequence[Block], sustained: bool) -> Iterator[Finding]:
    under, slowed = [], []
    for number, block in enumerate(blocks, 1):
        new = _new_bits(block.measurement.conditions)
        if new & (_UNDER_VOLTAGE | _UNDER_VOLTAGE << 16):
            under.append(number)
        if new & (_SLOWED | _SLOWED << 16):
            slowed.append(number)
    if under:
        yield Finding(
            doubt="under-voltage",
            reason=f"the supply fell below what the board needs in {_blocks(under, blocks)}",
            remedy="use the board's own power supply and a short cable",
            blocking=True,
        )
    slow = sorted({*slowed, *_slow_clock(blocks)})
    if slow:
        yield Finding(
            doubt="throttled",
            reason=f"the CPU was slowed down for its temperature in {_blocks(slow, blocks)}",
            remedy="give it a heat sink or pauses (--mode cool), or measure what it settles at (--mode sustained)",
            blocking=not sustained,
        )


def _new_bits(conditions: Mapping[str, str]) -> int:
    """Bits set now at the end, and bits since boot that were not there at the beginning."""
    before, after = (_number(conditions.get(f"throttled_{moment}", "")) for moment in ("before", "after"))
    return (after & 0xFFFF) | (after & ~before & 0xFFFF0000)


def _slow_clock(blocks: Sequence[Block]) -> list[int]:
    """Blocks whose lowest clock was clearly under the session's highest, by what was read while they ran."""
    lowest = [_number(block.measurement.conditions.get("cpu_freq_khz_lowest", "")) for block in blocks]
    highest = max([_number(block.measurement.conditions.get("cpu_freq_khz_highest", "")) for block in blocks] or [0])
    return [number for number, khz in enumerate(lowest, 1) if khz and khz < highest * (1 - FREQUENCY_SHARE)]


def _background(blocks: Sequence[Block]) -> Iterator[Finding]:
    shares = [_real(block.measurement.conditions.get("other_cpu_share", "")) for block in blocks]
    busy = [number for number, share in enumerate(shares, 1) if share > BACKGROUND_SHARE]
    if busy:
        yield Finding(
            doubt="background-load",
            reason=f"other processes took up to {max(shares):.0%} of a CPU in {_blocks(busy, blocks)}",
            remedy="end them (`top` on the device says which), or pin the benchmark to other cores (--cpus)",
            blocking=True,
        )


def _clock(blocks: Sequence[Block]) -> Iterator[Finding]:
    steps = [abs(_real(block.measurement.conditions.get("clock_step_ms", ""))) for block in blocks]
    jumped = [number for number, step in enumerate(steps, 1) if step > CLOCK_STEP_MS]
    if jumped:
        yield Finding(
            doubt="clock-jump",
            reason=f"the device's clock was set by {max(steps):.0f} ms during {_blocks(jumped, blocks)}",
            remedy="latencies use the monotonic clock and hold; wait for time synchronisation before aligning a meter",
            blocking=False,
        )


def _few(blocks: Sequence[Block]) -> Iterator[Finding]:
    for label in sorted({block.label for block in blocks}):
        count = sum(block.label == label for block in blocks)
        if count < LEAST_PROCESSES:
            yield Finding(
                doubt="too-few-samples",
                reason=f"{_of(label, blocks)}{count} processes; how much they differ takes {LEAST_PROCESSES} to say",
                remedy="raise --max-time",
                blocking=True,
            )


def _drifting(blocks: Sequence[Block]) -> Iterator[Finding]:
    """A trend over the blocks that chance does not explain (Mann-Kendall), of a size that matters (Theil-Sen)."""
    for label in sorted({block.label for block in blocks}):
        own = [block for block in blocks if block.label == label]
        if len(own) < LEAST_PROCESSES:
            continue
        times, medians = np.array([block.start_s for block in own]), process_medians_ms(own)
        if np.ptp(times) == 0 or np.ptp(medians) == 0:
            continue
        slope = float(stats.theilslopes(medians, times)[0])
        change = slope * float(np.ptp(times)) / float(np.median(medians))
        if abs(change) > DRIFT_SHARE and float(stats.kendalltau(times, medians).pvalue) < _CHANCE:
            yield Finding(
                doubt="drifting",
                reason=f"{_of(label, blocks)}latency {'rose' if change > 0 else 'fell'} by {abs(change):.0%} "
                "from first to last block",
                remedy="let the device warm up and settle longer, or measure what it settles at (--mode sustained)",
                blocking=True,
            )


def _unstable(blocks: Sequence[Block]) -> Iterator[Finding]:
    for label in sorted({block.label for block in blocks}):
        medians = process_medians_ms([block for block in blocks if block.label == label])
        if len(medians) < LEAST_PROCESSES:
            continue
        variation = float(np.std(medians, ddof=1) / np.mean(medians))
        if variation > UNSTABLE_CV:
            yield Finding(
                doubt="unstable",
                reason=f"{_of(label, blocks)}processes differ by {variation:.0%} (coefficient of variation)",
                remedy="set the governor to performance (--governor performance), pin to equal cores (--cpus)",
                blocking=False,
            )


def _of(label: str, blocks: Sequence[Block]) -> str:
    return f"{label}: " if any(block.label != label for block in blocks) else ""


def _blocks(numbers: Sequence[int], blocks: Sequence[Block]) -> str:
    if len(numbers) == len(blocks):
        return "every block"
    shown = ", ".join(map(str, numbers[:6])) + (" …" if len(numbers) > 6 else "")
    return f"block{'s' if len(numbers) > 1 else ''} {shown} of {len(blocks)}"


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return 0


def _real(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
