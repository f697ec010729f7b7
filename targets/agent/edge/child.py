"""The benchmark itself, in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable

from .answers import compare, load_arrays
from .facts import parse_kb
from .files import read_text
from .runtimes import OnnxModel, TfliteModel, exact_int8, import_runtime
from .sampling import MAX_WARM_SAMPLES, SLOW_RUN_NS, WARMUP_SHARE, duty_cycled, warm_samples, warm_up
from .torch_runtime import TorchModel
from .wire import MAX_REQUEST_BYTES, Json, Refused

MODELS: dict[str, Any] = {"tflite": TfliteModel, "onnx": OnnxModel, "pt": TorchModel}


def peak_rss_bytes() -> int | None:
    return parse_kb(read_text("/proc/self/status"), "VmHWM")


def run_benchmark(job: Json, stage: Callable[[str], None]) -> Json:
    stage("importing the runtime")
    distribution, version, module = import_runtime(job["format"])
    sample = load_arrays(job["inputs"])
    model: Any = MODELS[job["format"]](module)
    clock = time.perf_counter_ns
    seen = {"peak_rss_before_load_bytes": str(peak_rss_bytes() or "unknown")}

    if job["format"] == "onnx":
        seen.update(exact_int8())  # an application on this CPU needs the same setting

    stage("loading the model")
    start = clock()
    model.load(job["blob"], job["threads"], sample)
    load_ns = clock() - start
    load_peak = peak_rss_bytes()
    seen.update(getattr(model, "conditions", {}))

    timed = timer(model)
    stage("the first inference")
    first_ns = timed()
    stage("warming up")
    warmup = warm_up(timed, first_ns, job["warm_max_s"] * 1e9 * WARMUP_SHARE)
    stage("warm inference")
    most = min(job["warm_max_samples"], MAX_WARM_SAMPLES)
    # When the first run and the one after it are both slow, the first was the warm-up: the second is a sample already.
    slow = min(first_ns, *warmup) >= SLOW_RUN_NS
    warm, warmup = (warmup, []) if slow else ([], warmup)
    if job.get("pause_s"):
        warm = duty_cycled(timed, job["pause_s"], job["warm_max_s"], job["warm_min_samples"], most)
    else:
        waited = waited_ns()
        fresh = warm_samples(timed, job["warm_max_s"], job["warm_min_samples"] - len(warm), most)
        seen.update(wait_share(waited, waited_ns(), sum(fresh)))
        warm += fresh
    windows: list[Json] = []
    if job.get("power"):
        from .windows import run_windows

        stage("inference under the power meter")
        windows, warm = run_windows(timed, job["power"], most)
    peak = peak_rss_bytes()  # after timing, never polled while it runs

    stage("comparing outputs")
    steps, finite = compare(model.outputs(), load_arrays(job["expected"]))
    return {
        "runtime": distribution, "runtime_version": version, "delegate": "", "delegated": model.delegated(),
        "load_ns": load_ns, "first_ns": first_ns, "warmup_ns": warmup, "warm_ns": warm,
        "load_peak_rss_bytes": load_peak, "peak_rss_bytes": peak,
        "max_steps": steps, "finite": finite, "conditions": seen, "windows": windows,
    }  # fmt: skip


def waited_ns() -> dict[str, int]:
    """By thread of this process: how long it was ready to run and had no core (CONFIG_SCHED_INFO)."""
    found = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        words = read_text(str(path)).split()
        if len(words) == 3 and words[1].isdigit():
            found[path.parent.name] = int(words[1])
    return found


def wait_share(before: dict[str, int], after: dict[str, int], lasted_ns: int) -> dict[str, str]:
    """Of the thread that waited longest, as a condition of the measurement; none where the kernel does not say."""
    if not before or lasted_ns <= 0:
        return {}
    longest = max(ns - before.get(thread, 0) for thread, ns in after.items())
    return {"cpu_wait_share": "%.3f" % min(1.0, longest / lasted_ns)}


def timer(model: Any) -> Callable[[], int]:
    """Runs the model once and tells the nanoseconds of that alone; its cost is a row of benchmarks/latency.py."""
    clock = time.perf_counter_ns

    def timed() -> int:
        model.reset()
        run = model.run
        start = clock()
        run()
        return clock() - start

    return timed


def pin(cpus: list[int]) -> None:
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as fault:
        raise Refused("input", "the cores %s cannot be used: %s" % (cpus, fault.strerror)) from None


def die_with_parent() -> None:
    """Have the kernel kill this process when its agent dies, however it dies."""
    with contextlib.suppress(OSError, AttributeError):  # the agent itself kills it in every case but its own SIGKILL
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def be_the_first_to_go() -> None:
    """When memory runs out, the kernel is to end this process and nothing else that the device does."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def work(job: Json) -> Callable[[Json, Callable[[str], None]], Json]:
    """What this process is for."""
    if job.get("profile"):
        from .profiling import profile

        return profile
    if job.get("pipeline"):
        from .whole import pipeline

        return pipeline
    if job.get("distances"):
        from .distances import distances

        return distances
    return run_benchmark


def bench_child(replies: BinaryIO) -> None:
    die_with_parent()
    be_the_first_to_go()

    def emit(record: Json) -> None:
        replies.write(json.dumps(record).encode() + b"\n")
        replies.flush()

    job = json.loads(sys.stdin.buffer.read(MAX_REQUEST_BYTES))
    try:
        if job.get("cpus"):
            pin(job["cpus"])  # before the import of a runtime, whose threads inherit it
        emit({"result": work(job)(job, lambda text: emit({"stage": text}))})
    except Refused as refusal:
        emit({"error": refusal.error})
    except Exception as fault:  # runtimes raise ValueError, RuntimeError and classes of their own
        emit({"error": {"code": "agent", "message": "%s: %s" % (type(fault).__name__, fault)}})
