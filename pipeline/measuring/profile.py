"""What a profile says: where the time goes, and why a quantized model may be slower than the float one."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from targets.records import Absent, OpTime, Profile

# Ops by what they are for, in the words of ONNX, of TensorFlow Lite, and of XNNPACK, which LiteRT's ops become.
_BOUNDARY = ("quantizelinear", "quantize", "dequantize", "convert")  # the beginnings of names, or the ends
_MOVING = ("transpose", "reshape", "concat", "slice", "gather", "pad", "tile", "unsqueeze", "squeeze", "cast", "copy")
_HEAVY = ("conv", "matmul", "gemm", "matrix multiply", "fully connected", "fully_connected", "lstm", "gru", "einsum")
_BUILT_IN = "built-in"
_WORTH = 0.1  # share of the time from which on a cause is worth a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All ops of one type that give one data type in one place."""

    op: str
    dtype: str
    where: str
    count: int
    us: float


def timed(profile: Profile) -> bool:
    """Whether it tells times."""
    return any(isinstance(op.us, float) for op in profile.ops)


def untold(profile: Profile) -> str:
    """Why it tells no times."""
    return next((op.us.reason for op in profile.ops if isinstance(op.us, Absent)), "the model has no ops")


def kinds(profile: Profile) -> list[Kind]:
    """The ops by type and data type, those that take longest first."""
    found: dict[tuple[str, str, str], list[OpTime]] = defaultdict(list)
    for op in profile.ops:
        found[(op.op, op.dtypes[0] if op.dtypes else "", op.where)].append(op)
    made = [
        Kind(op=op, dtype=dtype, where=where, count=len(ops), us=_us(ops)) for (op, dtype, where), ops in found.items()
    ]
    return sorted(made, key=lambda kind: (-kind.us, -kind.count))


def reasons(profile: Profile) -> list[str]:
    """In sentences: what of the time buys nothing, what fell back to float, and what the delegate did not take."""
    total = _us(profile.ops)
    if not total:
        return []
    found = []
    if is_quantized(profile):
        boundary = _chosen(profile, _is_boundary)
        if (share := _us(boundary) / total) >= _WORTH:
            found.append(
                f"{share:.0%} of the time converts between float and int8, {_at(boundary)}: quantize what lies "
                "between them, or give the model int8 inputs and outputs"
            )
        fallen = _chosen(profile, _is_fallen)
        if (share := _us(fallen) / total) >= _WORTH:
            found.append(f"{share:.0%} of the time is in {_ops(fallen)} that stayed in float ({_names(fallen)})")
        moving = _chosen(profile, _is_moving)
        if (share := _us(moving) / total) >= _WORTH:
            found.append(f"{share:.0%} of the time only moves data ({_names(moving)}), which int8 hardly makes cheaper")
    left = _chosen(profile, _is_left)
    if (share := _us(left) / total) >= _WORTH and len(left) < len(profile.ops):
        found.append(
            f"{share:.0%} of the time is in {_ops(left)} that XNNPACK did not take ({_names(left)}): there the "
            "runtime's own kernels run, some of them plain reference code"
        )
    return found


def compared(float_profile: Profile, other: Profile) -> list[str]:
    """Why `other` is slower or faster than the float model, by groups of ops."""
    before, after = _us(float_profile.ops), _us(other.ops)
    if not before or not after:
        return []
    ratio = f"{after / before:.2f}×"
    if after <= before:
        return [f"its ops take {ratio} the float model's time"]
    heavy = [_us(_chosen(profile, _is_heavy)) for profile in (float_profile, other)]
    causes = []
    if heavy[1] > heavy[0] > 0:
        causes.append(
            f"its convolutions and matrix products take {heavy[1] / heavy[0]:.1f}× as long: no fast int8 kernel"
        )
    boundary, left = _chosen(other, _is_boundary), _chosen(other, _is_left)
    extra = after - heavy[1] - (before - heavy[0])
    if (lost := _us(boundary)) > _WORTH * (after - before):
        causes.append(f"converting between float and int8 takes {_ms(lost)}, {_at(boundary)}")
        extra -= lost
    if (lost := _us(left) - _us(_chosen(float_profile, _is_left))) > _WORTH * (after - before):
        causes.append(f"XNNPACK does not take {_ops(left)} of it ({_names(left)}), which costs {_ms(lost)} more")
        extra -= lost
    if extra > _WORTH * before:
        causes.append(f"all other ops take {_ms(extra)} more")
    return [
        f"int8 is slower than float here ({ratio}) because " + "; ".join(causes or ["everything takes a little more"])
    ]


def explained(profiles: Mapping[str, Profile]) -> list[str]:
    """Of each quantized model, why it is slower or faster than the float one among them."""
    base = next((found for found in profiles.values() if timed(found) and not is_quantized(found)), None)
    if base is None:
        return []
    quantized = {model: found for model, found in profiles.items() if is_quantized(found)}
    return [f"{model}: {said}" for model, found in quantized.items() for said in compared(base, found)]


def is_quantized(profile: Profile) -> bool:
    """Whether any of its ops computes on integers of 8 or 16 bits."""
    return any("int8" in dtype or dtype == "int16" for op in profile.ops for dtype in op.dtypes)


def _is_boundary(op: OpTime) -> bool:
    name = op.op.lower()
    return name.startswith(_BOUNDARY) or name.endswith(_BOUNDARY[0])


def _is_heavy(op: OpTime) -> bool:
    return not _is_boundary(op) and any(name in op.op.lower() for name in _HEAVY)


def _is_fallen(op: OpTime) -> bool:
    return _is_heavy(op) and any(dtype.startswith("float") for dtype in op.dtypes)


def _is_moving(op: OpTime) -> bool:
    return not _is_heavy(op) and not _is_boundary(op) and any(name in op.op.lower() for name in _MOVING)


def _is_left(op: OpTime) -> bool:
    return op.where == _BUILT_IN


def _chosen(profile: Profile, rule: Callable[[OpTime], bool]) -> list[OpTime]:
    return [op for op in profile.ops if rule(op)]


def _names(ops: Sequence[OpTime]) -> str:
    """The types of the three that take longest."""
    return ", ".join(list(dict.fromkeys(op.op for op in sorted(ops, key=lambda op: -_us([op]))))[:3])


def _ops(ops: Sequence[OpTime]) -> str:
    return f"{len(ops)} op" + "s" * (len(ops) != 1)


def _at(ops: Sequence[OpTime]) -> str:
    return f"at {len(ops)} place" + "s" * (len(ops) != 1)


def _ms(us: float) -> str:
    return f"{us / 1000:.2g} ms"


def _us(ops: Sequence[OpTime]) -> float:
    return sum(op.us for op in ops if isinstance(op.us, float))
