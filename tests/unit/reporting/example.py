"""A report as a real run gives it: the demo network, eight recipes and one that was refused, with pictures."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data, transform

from pipeline.records import (
    CandidateReport,
    DataSummary,
    FloatOps,
    MetricValue,
    Picture,
    Report,
    SourceReport,
    Summary,
    TargetResult,
    VerdictKind,
)
from targets.records import Absent, Answer, Facts, Failed, TensorSpec

NO_METER = "no power meter on local"
HOSTILE = "<script>alert('x')</script>"
SAMPLES = ("astronaut", "coffee", "chelsea")
_HEX = "9f2c4e71ab3d58600c1de2f3948576a1b2c3d4e5f60718293a4b5c6d7e8f9012"

# recipe, kB, PSNR, SQNR, median ms, verdict, reason
_ROWS: tuple[tuple[str, float, float, float | None, float, VerdictKind, str], ...] = (
    ("litert-float32", 895.9, 29.73, None, 25.1, "pass", "the float32 baseline"),
    ("litert-float16", 455.1, 29.73, 83.3, 25.0, "pass", "within all budgets"),
    ("litert-dynamic", 238.5, 29.72, 54.1, 8.02, "pass", "within all budgets"),
    ("litert-int8", 244.8, 29.67, 46.5, 6.13, "pass", "within all budgets; lowest latency of 6 that pass"),
    ("litert-uint8-io", 245.2, 29.67, 46.5, 6.74, "pass", "within all budgets"),
    ("litert-int16x8", 252.3, 29.72, 56.4, 599.0, "fail", "latency_ms: 599 is over the budget of 30"),
    ("onnx-float32", 895.9, 29.73, 138.2, 21.4, "pass", "within all budgets"),
    ("onnx-int8-qdq", 251.6, 29.58, 38.2, 11.7, "inconclusive", "5 of 40 samples were throttled: 72→84 °C"),
)
_REFUSED = CandidateReport(
    recipe="litert-int4-block",
    format="tflite",
    path="",
    sha256="",
    size_bytes=0,
    ops_total=0,
    ops_quantized={},
    ops_left_float=(),
    fidelity={},
    metrics={},
    targets={},
    verdict="refused",
    reason=f"the converter died with signal 6 while reading {HOSTILE}",
    tools={"ai-edge-quantizer": "0.10.0"},
    last_output=("loc(fused<callsite>): error: 'tfl.conv_2d' op quantization", HOSTILE, "\x1b[31mAborted\x1b[0m"),
)


def example(pictures: Path | None = None) -> Report:
    """One device, `local`. With a folder, pictures are drawn into it."""
    candidates = tuple(_candidate(*row, pictures=pictures) for row in _ROWS)
    spec = {"dtype": "float32"}
    return Report(
        name="esrgan-x2",
        created="2026-11-23T21:50:07Z",
        status="pass",
        chosen="litert-int8",
        chosen_by_target={"local": "litert-int8"},
        reason="lowest latency of the 6 candidates that pass every budget",
        objective="latency",
        baseline="litert-float32",
        source=SourceReport(
            path="models/esrgan_x2.keras",
            sha256=_HEX,
            kind="keras",
            inputs=(TensorSpec(name="lr", shape=(1, 96, 96, 3), **spec),),
            outputs=(TensorSpec(name="hr", shape=(1, 192, 192, 3), **spec),),
        ),
        calibration=_data("calibration_data/photos/calibrate", 12, ("rocket and rocket-2 are the same picture",)),
        test=_data("calibration_data/photos/test", 6, ()),
        budgets={"latency_ms": "30", "psnr_y drop": "0.2 dB", "size": "1 MB"},
        candidates=(*candidates, _REFUSED),
        facts={"local": facts("local")},
        tools={"deploy": "0.1.0", "ai-edge-litert": "2.3.0", "tensorflow": "2.21.0", "onnxruntime": "1.32.0"},
        release=_HEX[::-1],
    )


def two_devices(pictures: Path | None = None) -> Report:
    """The same run on a second, emulated device that answered, and a third that did not."""
    report = example(pictures)
    candidates = tuple(
        replace(c, targets={**c.targets, "pi4-emulated": _scaled(c.targets["local"], 7.3)}) if c.targets else c
        for c in report.candidates
    )
    return replace(
        report,
        status="device-error",
        chosen_by_target={"local": "litert-int8", "pi4-emulated": "litert-int8", "pixel": None},
        candidates=candidates,
        facts={
            **report.facts,
            "pi4-emulated": facts("pi4-emulated", arch="aarch64", emulated="qemu-user on x86-64"),
            "pixel": Failed(code="unreachable", message="no route to 192.0.2.7", hint="is it switched on?"),
        },
    )


def facts(target: str, arch: str = "x86_64", emulated: str = "") -> Facts:
    return Facts(
        target=target,
        arch=arch,
        cpu_model="Cortex-A72" if arch == "aarch64" else "AMD EPYC 7B13",
        cpu_features=("neon", "asimddp") if arch == "aarch64" else ("avx2", "avx512_vnni"),
        cpu_count=2,
        os="Debian GNU/Linux 12 (bookworm)",
        kernel="6.1.0",
        libc="glibc 2.36",
        python="3.11.7",
        runtimes={"ai-edge-litert": "2.3.0", "onnxruntime": "1.32.0"},
        governor=Absent(reason="no cpufreq in this kernel"),
        free_disk_bytes=31_000_000_000,
        total_memory_bytes=4_100_000_000,
        available_memory_bytes=3_000_000_000,
        temperature_c=Absent(reason="no thermal zone"),
        meters=(),
        emulated=emulated,
    )


def _data(path: str, count: int, findings: tuple[str, ...]) -> DataSummary:
    ids = tuple(f"{SAMPLES[i % 3]}-{i}" for i in range(count))
    return DataSummary(path=path, digest=_HEX, preprocess=_HEX[:32] * 2, count=count, sample_ids=ids, findings=findings)


def _candidate(
    recipe: str,
    size_kb: float,
    psnr: float,
    sqnr: float | None,
    median: float,
    verdict: VerdictKind,
    reason: str,
    pictures: Path | None,
) -> CandidateReport:
    format_name = "onnx" if recipe.startswith("onnx") else "tflite"
    quantized: Mapping[str, int] = {} if "float" in recipe else {"CONV_2D": 20, "ADD": 15}
    left = (FloatOps(op="DEPTH_TO_SPACE", count=1, reason="no quantized kernel in this runtime"),)
    return CandidateReport(
        recipe=recipe,
        format="onnx" if format_name == "onnx" else "tflite",
        path=f"models/{recipe}.{format_name}",
        sha256=_HEX,
        size_bytes=int(size_kb * 1000),
        ops_total=36,
        ops_quantized=quantized,
        ops_left_float=left if quantized else (FloatOps(op="*", count=36, reason="a float recipe"),),
        fidelity={} if sqnr is None else {"sqnr_db": sqnr, "cosine": 0.99998},
        metrics={"PSNR-Y": MetricValue(value=psnr, reference=29.73, better="higher", unit="dB")},
        targets={"local": _result(median, verdict, reason)},
        verdict=verdict,
        reason=reason,
        tools={"ai-edge-litert": "2.3.0"},
        findings=("output saturates in 3 channels of conv_7",) if recipe == "onnx-int8-qdq" else (),
        pictures=tuple(_picture(recipe, s, sqnr or 160, pictures) for s in SAMPLES) if pictures else (),
    )


def _result(median: float, verdict: VerdictKind, reason: str) -> TargetResult:
    draw = random.Random(median)  # seeded: the same report each time
    samples = tuple(median * (0.97 + draw.expovariate(25.0)) for _ in range(60))
    return TargetResult(
        load_ms=median * 0.6,
        first_ms=median * 1.8,
        warm_ms=Summary(median=median, p90=median * 1.09, ci95=(median * 0.988, median * 1.013), n=60),
        warm_samples_ms=samples,
        fps=1000 / median,
        peak_rss_bytes=int(41e6 + median * 4e5) if median < 100 else 58_200_000,
        energy=Absent(reason=NO_METER),
        runtime="ai-edge-litert 2.3.0, XNNPACK, 1 thread",
        answer=Answer(max_steps=1.0, finite=True),
        verdict=verdict,
        reason=reason,
        conditions={"load_average": "0.4", "threads": "1"},
    )


def _scaled(result: TargetResult, factor: float) -> TargetResult:
    assert isinstance(result.warm_ms, Summary)
    return replace(_result(result.warm_ms.median * factor, result.verdict, result.reason), energy=0.0213)


def _picture(recipe: str, sample: str, sqnr: float, folder: Path) -> Picture:
    truth = _photo(sample)
    small = transform.resize(truth, (96, 96), anti_aliasing=True)
    reference = transform.resize(small, truth.shape, order=3).clip(0, 1)
    noise = np.random.default_rng(len(recipe)).normal(0, 10 ** (-sqnr / 20), truth.shape)
    candidate = (reference + noise).clip(0, 1)
    gain = 16.0

    def save(name: str, image: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> str:
        path = folder / f"{sample}-{name}.png"
        Image.fromarray((image * 255).round().astype(np.uint8)).save(path)
        return f"{folder.name}/{path.name}"

    return Picture(
        sample=sample,
        input=save("input", small),
        truth=save("truth", truth),
        reference=save("float", reference),
        candidate=save(recipe, candidate),
        error_map=save(f"{recipe}-error", (np.abs(candidate - reference) * gain).clip(0, 1)),
        error_gain=gain,
    )


def _photo(sample: str) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    load: Callable[[], np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = getattr(data, sample)
    photo = load()
    side = min(photo.shape[:2])
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    return np.asarray(transform.resize(photo[top : top + side, left : left + side], (192, 192), anti_aliasing=True))
