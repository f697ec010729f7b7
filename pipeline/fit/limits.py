"""What released runtimes can load, as they said themselves (limits.json, written by docs/runtime_limits.py).

Every version between two that were asked knows at least what the older one knows and at most what the newer one does:
neither runtime has ever taken an operator, opset or IR version back. What lies between is not judged.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from pipeline.fit.records import OnnxNeeds, OrtNeeds, RuntimeName, TfliteNeeds

# One line of development under three names: Maven's tensorflow-lite 2.x, then litert 1.x and 2.x.
_LINES = {"tflite-runtime": 0, "ai-edge-litert": 1, "onnxruntime": 0}
_RUNTIMES: Mapping[str, RuntimeName] = {
    "tflite-runtime": "litert",
    "ai-edge-litert": "litert",
    "onnxruntime": "onnxruntime",
}
# https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html and, for version 6,
# microsoft/onnxruntime#20670: format -> first release that reads it.
# Of one library under two names, what says 2.5 to 2.17 of itself is TensorFlow's number; LiteRT's own are below.
FIRST_OLD_NUMBER, LAST_TENSORFLOW = (2, 5), (2, 17)
_ORT_FORMATS = {"4": (1, 8), "5": (1, 13), "6": (1, 16)}

# INT4 is 17; what is older, every runtime that is met has.
_ALWAYS_KNOWN_TYPE = 16

Key = tuple[int, ...]


def version_key(text: str) -> Key | None:
    """A version's numbers, or None when it has none."""
    found = re.match(r"(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def place(runtime: RuntimeName, version: str, *, tensorflow: bool) -> Key | None:
    """Where a version stands among all of its runtime. `tensorflow`: it is one of Maven's tensorflow-lite.

    None is "nobody knows", as for a LiteRT that goes on with TensorFlow's numbers.
    """
    key = version_key(version)
    if key is None or (tensorflow and key[:2] > LAST_TENSORFLOW):
        return None
    return (0 if runtime == "onnxruntime" or tensorflow else 1, *key)


def lacking(
    needs: TfliteNeeds | OnnxNeeds | OrtNeeds, runtime: RuntimeName, at: Key
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a version surely does not know, and what it may not know, of a model's needs; in words."""
    if isinstance(needs, OrtNeeds):
        return _lacking_ort(needs, at)
    newer = [said for key, said in limits_of(runtime) if key >= at]
    wanted = _wanted(needs)
    least = knowledge(runtime, at)
    unknown = {name: asked for name, (asked, _) in wanted.items() if asked > least.get(name, 0)}
    sure = {name: newer[0].get(name, 0) for name in unknown if newer and unknown[name] > newer[0].get(name, 0)}
    return (
        tuple(
            wanted[name][1] + (f" (it knows {sure[name]})" if sure[name] and name != "type" else "") for name in sure
        ),
        tuple(wanted[name][1] for name in unknown if name not in sure),
    )


def knowledge(runtime: RuntimeName, at: Key) -> dict[str, int]:
    """What a version surely knows: what the newest release that we asked and that is not newer does."""
    older = [said for key, said in limits_of(runtime) if key <= at]
    return older[-1] if older else {}


def first_with(needs: TfliteNeeds | OnnxNeeds, runtime: RuntimeName) -> str:
    """The oldest release we asked that loads such a model, by its number, or nothing."""
    for (line, *numbers), said in limits_of(runtime):
        if all(asked <= said.get(name, 0) for name, (asked, _) in _wanted(needs).items()):
            return ("tensorflow-lite " if runtime == "litert" and line == 0 else "") + ".".join(map(str, numbers))
    return ""


def _wanted(needs: TfliteNeeds | OnnxNeeds) -> dict[str, tuple[int, str]]:
    """What is wanted of a table's row: key -> least value, and that in words."""
    if isinstance(needs, OnnxNeeds):
        # Of com.microsoft's operators those are judged that were asked for; another domain is the user's own.
        asked = {key for _, said in limits_of("onnxruntime") for key in said}
        found = {"opset": (needs.opset, f"opset {needs.opset}"), "ir": (needs.ir, f"IR version {needs.ir}")}
        if needs.ml:
            found["ml"] = (needs.ml, f"opset {needs.ml} of ai.onnx.ml")
        return found | {name: (1, name) for name in needs.ops if name in asked}
    highest: dict[int, int] = {}
    for code, version in needs.ops:
        highest[code] = max(version, highest.get(code, 0))
    wanted = {str(code): (version, f"{op_name(code)} version {version}") for code, version in highest.items()}
    if needs.tensor_type > _ALWAYS_KNOWN_TYPE:
        wanted["type"] = (needs.tensor_type, f"tensors of {type_name(needs.tensor_type)}")
    return wanted


def _lacking_ort(needs: OrtNeeds, at: Key) -> tuple[tuple[str, ...], tuple[str, ...]]:
    said = f"ORT format {needs.version or 'without a version'}"
    first = _ORT_FORMATS.get(needs.version)
    if first is None:
        return (), (said,)
    if at[1:3] < first:
        return (f"{said} (read since {first[0]}.{first[1]})",), ()
    # Version 5 removed what version 4 relied on; later releases read 4 "with limited support".
    return (), ((f"{said} (limited since 1.13)",) if needs.version == "4" and at[1:3] >= (1, 13) else ())


@cache
def limits_of(runtime: RuntimeName) -> list[tuple[Key, dict[str, int]]]:
    """What each asked release knows, oldest first: highest version by operator code, or `opset` and `ir`."""
    rows = []
    for name, versions in _read().items():
        if _RUNTIMES.get(name) == runtime:
            rows += [((_LINES[name], *(version_key(v) or ())), said) for v, said in versions.items()]
    return sorted(rows, key=lambda row: row[0])


def op_name(code: int) -> str:
    """The operator's name in TFLite's schema."""
    return str(_read()["operators"].get(str(code), f"operator {code}"))


def type_name(number: int) -> str:
    """The name of a tensor's data type in TFLite's schema."""
    return str(_read()["types"].get(str(number), f"type {number}"))


def custom_ops() -> frozenset[str]:
    """Custom operators that the runtimes bring themselves."""
    rows = [said for _, said in limits_of("litert")]
    return frozenset(key.removeprefix("custom.") for said in rows for key in said if key.startswith("custom."))


@cache
def _read() -> Any:
    return json.loads((files("pipeline.fit") / "limits.json").read_text(encoding="utf-8"))
