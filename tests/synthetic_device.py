"""A device whose latencies follow a law that is written down here: what statistics are judged against.

It plays no device of ours in a test of ours: it is the known truth for code that only sees numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from targets.records import Absent, Answer, BenchRequest, Facts, Measurement

SAMPLES = 40
BASE_MS = {"a": 5.0, "b": 5.0}


def facts(**changes: object) -> Facts:
    plain: dict[str, object] = {
        "target": "pi", "arch": "aarch64", "cpu_model": "4x Cortex-A76", "cpu_features": (), "cpu_count": 4, "os": "",
        "kernel": "", "libc": "glibc 2.36", "python": "3.11.2", "runtimes": {}, "governor": "performance",
        "free_disk_bytes": 0, "total_memory_bytes": 0, "available_memory_bytes": 0, "temperature_c": 50.0, "meters": (),
    }  # fmt: skip
    return Facts(**{**plain, **changes})  # type: ignore[arg-type]


def request(model: str) -> BenchRequest:
    return BenchRequest(
        blob=model, format="tflite", inputs="", expected="", threads=1, warm_max_s=0.4, warm_min_samples=3,
        warm_max_samples=2000,
    )  # fmt: skip


def measurement(model: str, warm_ns: "np.ndarray[object, np.dtype[np.int64]]", **conditions: str) -> Measurement:
    return Measurement(
        target="pi", blob=model, runtime="ai-edge-litert", runtime_version="2.3.0", delegate="XNNPACK", threads=1,
        load_ns=1_000_000, first_ns=int(warm_ns[0]) * 2, warmup_ns=(), warm_ns=tuple(int(n) for n in warm_ns),
        load_peak_rss_bytes=1, peak_rss_bytes=1, energy=Absent(reason="none"), answer=Answer(max_steps=0, finite=True),
        conditions=conditions,
    )  # fmt: skip


@dataclass
class SyntheticDevice:
    """Time passes only while it measures. `drift_per_s`: relative; `throttle_at_s`: it is slower by a third from then,
    on and off every 7 s; processes differ by `between`, samples by `within`."""

    ratio: float = 1.0  # of model b's latency to model a's
    drift_per_s: float = 0.0
    throttle_at_s: float = 1e9
    between: float = 0.01
    within: float = 0.03
    seed: int = 0
    block_s: float = 1.0
    now_s: float = 0.0
    facts_: Facts = field(default_factory=facts)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def facts(self) -> Facts:
        return self.facts_

    def bench(self, request: BenchRequest, deadline_s: float, files: Mapping[str, Path] | None = None) -> Measurement:
        times = self.now_s + np.linspace(0, self.block_s, SAMPLES, endpoint=False)
        slow = 1 + self.drift_per_s * times
        hot = (times >= self.throttle_at_s) & ((times - self.throttle_at_s) % 14 < 7)
        slow = slow * np.where(hot, 4 / 3, 1.0)
        process = np.exp(self.random.normal(0, self.between))
        noise = np.exp(np.abs(self.random.normal(0, self.within, SAMPLES)))
        base = 5e6 * (self.ratio if request.blob == "b" else 1.0)
        self.now_s += self.block_s
        return measurement(request.blob, (base * slow * process * noise).astype(np.int64))
