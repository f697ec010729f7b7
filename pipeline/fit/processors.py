"""What a processor or system makes of a runtime: known bad combinations, and what is slow there. Data with sources."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.fit.limits import version_key
from pipeline.fit.records import Described, Reason
from targets.records import Facts

_ARM = ("aarch64", "armv7l", "armv6l")
_DOT_PRODUCT = {"asimddp", "i8mm"}
_HALF_PRECISION = {"asimdhp", "fphp"}
_VNNI = {"avx_vnni", "avx512_vnni"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBad:
    """Releases of a runtime (first, and the first good one again) that end the process on some devices."""

    runtime: str
    first: tuple[int, ...]
    mended: tuple[int, ...]
    where: Callable[[Facts], bool]
    detail: str
    remedy: str


KNOWN_BAD = (
    # microsoft/onnxruntime#23957, #24112, #24512. Under qemu the wheel of 1.21.0 ends on a Cortex-A72 when it is
    # imported and lives on a Cortex-A76; that of 1.21.1 lives on both.
    KnownBad(
        runtime="onnxruntime",
        first=(1, 21, 0),
        mended=(1, 21, 1),
        where=lambda facts: facts.arch == "aarch64" and not _HALF_PRECISION & set(facts.cpu_features),
        detail="onnxruntime 1.21.0 ends with an illegal instruction on CPUs without half precision (Raspberry Pi 4)",
        remedy="there: pip install 'onnxruntime!=1.21.0'",
    ),
)


def known_bad(runtime: str, version: str, facts: Facts) -> Iterator[Reason]:
    """What is known to end the process, unless the runtime was just imported there and lives."""
    key = version_key(version)
    for bad in KNOWN_BAD:
        lives = facts.imports.get(runtime) == ""
        if bad.runtime == runtime and key and bad.first <= key < bad.mended and bad.where(facts) and not lives:
            yield Reason(code="known-bad", weight="no", detail=bad.detail, remedy=bad.remedy)


def slow(model: Described, runtime: str, facts: Facts) -> Iterator[Reason]:
    """Why it will be slower there than it could be."""
    features = set(facts.cpu_features)
    if model.wide_integer and model.format == "tflite":
        detail = "16-bit activations run on reference kernels, 50 to 135 times slower than float (seen on x86)"
        yield Reason(code="slow", weight="note", detail=detail, remedy="take int8, or float16")
    elif model.integer and facts.arch in _ARM and not _DOT_PRODUCT & features:
        detail = f"{facts.cpu_model} has no dot-product instructions: int8 is no faster than float there, or little"
        yield Reason(code="slow", weight="note", detail=detail, remedy="measure float16 and float32 too")
    elif model.integer and runtime == "tflite-runtime" and "sse2" in features:
        detail = "tflite-runtime has no fast int8 kernels on x86: 16 times slower than ai-edge-litert (MobileNetV2)"
        yield Reason(code="slow", weight="note", detail=detail, remedy="install ai-edge-litert there")
    elif model.integer and model.format == "onnx" and "sse2" in features and not _VNNI & features:
        detail = "without VNNI instructions ONNX Runtime is asked for exact int8 products, which are slower"
        yield Reason(code="slow", weight="note", detail=detail)
