"""What a profile says: where the time goes, and why a quantized model may be slower than the float one."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from targets.records import OpTime, Profile

_BOUNDARY = ("QuantizeLinear", "DequantizeLinear", "QUANTIZE", "DEQUANTIZE", "DynamicQuantizeLinear")
_MOVING = ("Transpose", "Reshape", "Concat", "Slice", "Gather", "Pad", "Tile", "Unsqueeze", "Squeeze", "Cast")
_HEAVY = ("Conv", "ConvTranspose", "MatMul", "Gemm", "FusedConv", "FusedMatMul", "FusedGemm", "LSTM", "GRU", "Einsum")
_WORTH = 0.1  # share of the time from which on a cause is worth a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All ops of one type that give one data type."""

    op: str
    dtype: str
    count: int
    us: float


def timed(profile: Profile) -> bool:
    """Whether it tells times."""
    return any(isinstance(op.us, float) for op in profile.ops)


def kinds(profile: Profile) -> list[Kind]:
    """The ops by type and data type, those that take longest first."""
    found: dict[tuple[str, str], list[OpTime]] = defaultdict(list)
    for op in profile.ops:
        found[(op.op, op.dtypes[0] if op.dtypes else "")].append(op)
    made = [Kind(op=op, dtype=dtype, count=len(ops), us=_us(ops)) for (op, dtype), ops in found.items()]
    return sorted(made, key=lambda kind: (-kind.us, -kind.count))


def reasons(profile: Profile) -> list[str]:
    """In sentences: what of the time buys nothing, and what fell back to float in a quantized model."""
    total = _us(profile.ops)
    quantized = any("int8" in dtype for op in profile.ops for dtype in op.dtypes)
    if not total or not quantized:
        return []
    found = []
    boundary = [op for op in profile.ops if op.op in _BOUNDARY]
    if (share := _us(boundary) / total) >= _WORTH:
        found.append(
            f"{share:.0%} of the time converts between float and int8, at {len(boundary)} places: quantize what lies "
            "between them, or give the model int8 inputs and outputs"
        )
    fallen = [op for op in profile.ops if op.op in _HEAVY and any(dtype.startswith("float") for dtype in op.dtypes)]
    if (share := _us(fallen) / total) >= _WORTH:
        names = ", ".join(dict.fromkeys(op.op for op in fallen))
        found.append(f"{share:.0%} of the time is in {len(fallen)} ops that stayed in float ({names})")
    moving = [op for op in profile.ops if op.op in _MOVING]
    if (share := _us(moving) / total) >= _WORTH:
        names = ", ".join(dict.fromkeys(op.op for op in sorted(moving, key=lambda op: -_us([op]))[:3]))
        found.append(f"{share:.0%} of the time only moves data ({names}), which int8 hardly makes cheaper")
    return found


def compared(float_profile: Profile, other: Profile) -> list[str]:
    """Why `other` is slower or faster than the float model, by groups of ops."""
    before, after = _us(float_profile.ops), _us(other.ops)
    if not before or not after:
        return []
    heavy = [sum(_us([op]) for op in p.ops if _is_heavy(op)) for p in (float_profile, other)]
    extra = after - heavy[1] - (before - heavy[0])
    if after <= before:
        return [f"its ops take {after / before:.2f}× the float model's time"]
    causes = []
    if heavy[1] > heavy[0]:
        causes.append(
            f"its convolutions and matrix products take {heavy[1] / heavy[0]:.1f}× as long: no fast int8 kernel"
        )
    if extra > 0.1 * before:
        causes.append(f"all other ops take {extra / 1000:.2g} ms more, mostly converting and rescaling")
    return [f"int8 is slower than float here ({after / before:.2f}×): " + "; ".join(causes or ["everything a little"])]


def _is_heavy(op: OpTime) -> bool:
    return any(name in op.op for name in ("Conv", "MatMul", "Gemm", "LSTM", "GRU"))


def _us(ops: Sequence[OpTime]) -> float:
    return sum(op.us for op in ops if isinstance(op.us, float))
