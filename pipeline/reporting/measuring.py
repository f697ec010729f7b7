"""A session of measuring as text: what was found, under which conditions, and whether to trust it."""

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.measuring.protocol import pairs
from pipeline.measuring.records import Block, Comparison, Latency, Order, Session
from pipeline.measuring.settling import settled
from pipeline.measuring.statistics import latency
from pipeline.quality.energy import energy_per_inference
from pipeline.quality.validity import findings as invalidating
from pipeline.quantities import joules, margin, milliseconds, number, size
from targets.records import Absent, Measurement

Row = tuple[str, str]


def rows(session: Session, label: Order) -> list[Row]:
    """Every quantity of one model of the session, by its name."""
    blocks = session.of(label)
    found = latency(blocks)
    return [
        ("load", milliseconds(found.load_ms)),
        ("first inference", milliseconds(found.first_ms)),
        ("warm, median", _median(found)),
        ("warm, tail", _tail(found)),
        *_duty(session, label),
        ("peak memory", _memory(blocks, session.activation_bytes.get(label, 0))),
        ("variation", _variation(found)),
        *_energy(session, label),
        *_settling(session, label),
        ("answers", _answers(blocks)),
        *_conditions(blocks),
    ]


def summary(session: Session) -> str:
    """One line: what was measured, how, and why it ended."""
    models = " against ".join(session.models[label] for label in sorted(session.models, reverse=True))
    count = f"{len(session.blocks)} processes in {session.seconds:.0f} s"
    return f"{session.target}: {models}, {session.mode}, {count}; {session.stopped}"


def doubts(session: Session) -> list[tuple[str, str]]:
    """(what is wrong, what to do) of every finding, those first that take the number's worth."""
    return [(f"{finding.doubt.replace('-', ' ')}: {finding.reason}", finding.remedy) for finding in session.findings]


def compared(session: Session, found: Comparison) -> list[Row]:
    """The comparison's own rows."""
    a, b = session.models["A"], session.models["B"]
    ratio = found.ratio
    return [
        (
            f"{b} / {a}",
            f"{ratio.value:.3f}× [{ratio.low:.3f}, {ratio.high:.3f}] over {len(pairs(session.blocks))} pairs",
        ),
        ("could have seen", f"a difference of {found.smallest_detectable:.1%} (in 4 of 5 such runs)"),
        ("margin", f"{found.margin:.1%} slower is allowed"),
    ]


def _median(found: Latency) -> str:
    median = found.median
    return f"{milliseconds(median.value)} [{milliseconds(median.low)}, {milliseconds(median.high)}]"


def _tail(found: Latency) -> str:
    parts = [f"p90 {milliseconds(found.p90)}"]
    if not isinstance(found.p99, Absent):
        parts.append(f"p99 {milliseconds(found.p99)}")
    if not isinstance(found.p99_bound, Absent):
        parts.append(f"p99 is below {milliseconds(found.p99_bound)} with 99 % confidence")
    return ", ".join(parts)


def _duty(session: Session, label: Order) -> Iterator[Row]:
    if measured := session.duty.get(label):
        median = float(np.median(measured.warm_ns)) / 1e6
        yield f"one every {session.pause_s:g} s", f"{milliseconds(median)} ({len(measured.warm_ns)} runs)"


def _energy(session: Session, label: Order) -> Iterator[Row]:
    """Gross and net, each with its uncertainty, and what speaks against them; why there is none where there is none."""
    measured = session.metered.get(label)
    if measured is None:
        return
    found = energy_per_inference(measured)
    if isinstance(found, Absent):
        yield "energy", f"not measured: {found.reason}"
        return
    gross = f"{joules(found.gross_j)} {margin(found.gross_error_j, found.gross_j)} an inference, all that was drawn"
    yield "energy, gross", f"{gross} ({number(found.busy_w)} W)"
    if isinstance(found.net_j, Absent):
        yield "energy, net", f"not known: {found.net_j.reason}"
    else:
        net = f"{joules(found.net_j)} {margin(found.net_error_j, found.net_j)}"
        yield "energy, net", f"{net} beyond idling at {number(found.idle_w)} W"
    windows = f"{found.windows} windows of {number(found.window_s)} s or more, {found.missing_samples} samples missing"
    yield "meter", f"{found.meter}: {found.scope}; {windows}"
    median_ms = float(np.median(measured.warm_ns)) / 1e6
    yield "in the windows", f"{milliseconds(median_ms)} median of {found.inferences} inferences"
    if doubts := [*found.doubts, *(finding.reason for finding in invalidating(measured))]:
        yield "no gate by it", "; ".join(doubts)


def _memory(blocks: Sequence[Block], activation_bytes: int) -> str:
    parts = []
    for what, field in (("loading", "load_peak_rss_bytes"), ("with inference", "peak_rss_bytes")):
        values = [v for block in blocks if not isinstance(v := getattr(block.measurement, field), Absent)]
        parts.append(f"{size(float(np.median(values)))} {what}" if values else f"unknown {what}")
    if activation_bytes:
        parts.append(f"of which the arena takes {size(activation_bytes)} by the model's shapes")
    return ", ".join(parts)


def _variation(found: Latency) -> str:
    between = "one process" if isinstance(found.between_cv, Absent) else f"{found.between_cv:.1%} between processes"
    return f"{found.within_cv:.1%} inside a process, {between}"


def _settling(session: Session, label: Order) -> Iterator[Row]:
    if session.mode != "sustained":
        return
    found = settled(session.of(label))
    if isinstance(found, Absent):
        yield "settles at", found.reason
        return
    began = f"began at {milliseconds(found.first_ms)}"
    slowed = found.throttled_after_s
    left = "never left that by 5 %" if isinstance(slowed, Absent) else f"slowed down after {slowed:.0f} s"
    yield "settles at", f"{milliseconds(found.steady_ms)} after {found.after_s:.0f} s ({began}, {left})"


def _answers(blocks: Sequence[Block]) -> str:
    worst = max(block.measurement.answer.max_steps for block in blocks)
    finite = all(block.measurement.answer.finite for block in blocks)
    return f"{worst:.3g} quantization steps from the host's" if finite else "NaN or infinity"


def _conditions(blocks: Sequence[Block]) -> Iterator[Row]:
    first = blocks[0].measurement
    delegate = f" with {first.delegate}" if first.delegate else ""
    threads = f"{first.threads} thread" + ("s" if first.threads > 1 else "")
    yield "runtime", f"{first.runtime} {first.runtime_version}{delegate}, {threads}{_cores(first)}"
    parts = [
        *_distinct(blocks, "process", "{}"),
        *_distinct(blocks, "governor_before", "governor {}"),
        *_range(blocks, ("cpu_freq_khz_lowest", "cpu_freq_khz_highest"), 1e-3, "{} MHz"),
        *_range(blocks, ("temperature_c_before", "temperature_c_after"), 1, "{} °C"),
        *_range(blocks, ("other_cpu_share",), 100, "others took {} % of a CPU"),
        *_range(blocks, ("cpu_wait_share",), 100, "it waited {} % of its time for one"),
        *_distinct(blocks, "throttled_after", "throttled {}"),
    ]
    if parts:
        yield "conditions", ", ".join(parts)


def _cores(measured: Measurement) -> str:
    cores = measured.conditions.get("cpus_allowed", "")
    return f", cores {cores}" if "," in cores else ""


def _distinct(blocks: Sequence[Block], key: str, form: str) -> list[str]:
    values = dict.fromkeys(v for block in blocks if (v := block.measurement.conditions.get(key)))
    return [form.format(" or ".join(values))] if values else []


def _range(blocks: Sequence[Block], keys: Sequence[str], factor: float, form: str) -> list[str]:
    texts = [text for block in blocks for key in keys if (text := block.measurement.conditions.get(key))]
    values = [float(text) * factor for text in texts if text.replace(".", "", 1).lstrip("-").isdigit()]
    if not values:
        return []
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return [form.format(low if low == high else f"{low}–{high}")]
