"""The precision of every op as a user's rules give it: for the `mixed` recipes."""

import re
from collections.abc import Mapping, Sequence

from pipeline.errors import ConversionFailed, nearest
from pipeline.records import Format, Precision
from pipeline.search.ops import Op

# What each back end can give to one op. onnxruntime's CPU kernels would convert half precision around every op.
POSSIBLE: Mapping[Format, tuple[Precision, ...]] = {
    "tflite": ("float32", "float16", "int16x8", "int8", "int8x4"),
    "onnx": ("float32", "int16x8", "int8"),
}


def mixed(
    ops: Sequence[Op], rules: Mapping[str, Precision], rest: Precision, format: Format
) -> Mapping[str, Precision]:
    """Op name -> precision: that of the first rule which is the op's type or matches its whole name, else `rest`.

    Raises:
        ConversionFailed: a rule fits no op, is no regular expression, or asks for what the format has not.
    """
    fits = {rule: _fitting(rule, ops) for rule in rules}
    for rule, precision in [*rules.items(), ("rest", rest)]:
        if precision not in POSSIBLE[format]:
            raise ConversionFailed(
                f"mixed: {rule}: {precision} is not to be had for one op in {format}",
                hint=f"it has: {', '.join(POSSIBLE[format])}",
            )
    for rule, names in fits.items():
        if not names:
            types = sorted({op.type for op in ops})
            raise ConversionFailed(
                f"mixed: {rule!r} fits none of the model's {len(ops)} ops{nearest(rule, [*types, *_names(ops)])}",
                hint=f"types: {', '.join(types)}; `deploy sensitivity --json` lists names",
            )
    return {op.name: next((p for rule, p in rules.items() if op.name in fits[rule]), rest) for op in ops}


def _fitting(rule: str, ops: Sequence[Op]) -> set[str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ConversionFailed(
            f"mixed: {rule!r} is no regular expression: {error}", hint="escape what is meant as it stands"
        ) from None
    return {op.name for op in ops if op.type == rule or op.name == rule or pattern.fullmatch(op.name)}


def _names(ops: Sequence[Op]) -> list[str]:
    return [op.name for op in ops]
