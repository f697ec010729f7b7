"""What came of a recipe against what it is for: verdict codes beside the budgets, and the recipe to try next. Pure.

A toolkit's own success message says nothing: it also stands under files where nothing was quantized, that run slower
than float, or that answer nonsense.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.quantities import size, times
from pipeline.recipes.grammar import decoded, float_of
from pipeline.records import Artifact, Verdict, VerdictCode
from pipeline.stages.rounds import Round, is_slower, latency_ratio
from targets.records import Measurement

# A recipe that saves less has left the weights as they were: the least that any promises is a half.
_LEAST_SAVED = 0.9
# Below this a file is mostly its own description, and quantizing adds to that.
_LEAST_JUDGED_BYTES = 100_000
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})

# What to try after a recipe, by what went wrong with it, the nearest first. `*`: after all others.
_LOSES_LESS: Mapping[str, tuple[str, ...]] = {
    "weight-int4": ("weight-int8", "weight-int8-b32", "float16"),
    "weight-int8": ("float16",),
    "dynamic-int8": ("int8", "weight-int8", "float16"),
    "int16x8": ("float16",),
    "float16": (),
    "*": ("auto", "int16x8", "float16"),
}
_SAVES_MORE: Mapping[str, tuple[str, ...]] = {
    "int8": ("weight-int8", "float16"),
    "int16x8": ("weight-int8", "float16"),
    "*": ("int8", "float16"),
}
_RUNS_FASTER: Mapping[str, tuple[str, ...]] = {
    "int8": ("float16",),
    "float16": ("int8",),
    "weight-int4": ("weight-int8", "int8"),
    "*": ("int8", "float16"),
}
_NEXT: Mapping[VerdictCode, Mapping[str, tuple[str, ...]]] = {
    "wrong": _LOSES_LESS,
    "lost-quality": _LOSES_LESS,
    "differs-on-device": _LOSES_LESS,
    "not-quantized": _SAVES_MORE,
    "slower-than-float": _RUNS_FASTER,
}


def size_ratio(artifact: Artifact) -> float | None:
    """Of the float32 model it was made from; None where that is not known."""
    return artifact.size_bytes / artifact.float_bytes if artifact.float_bytes else None


def with_outcome(
    verdict: Verdict,
    artifact: Artifact,
    measured: Mapping[str, object],
    promised_size: float | None,
    rounds: Sequence[Round] = (),
) -> Verdict:
    """The verdict with what the recipe did not keep. Nothing quantized is a failure: then float32 itself is honest.

    Slower than float is none, where the budgets allow it: the file may be wanted for its size.
    """
    ratio = size_ratio(artifact)
    judged = promised_size is not None and artifact.float_bytes >= _LEAST_JUDGED_BYTES
    if judged and ratio is not None and ratio > _LEAST_SAVED:
        said = (
            f"nothing was quantized, or next to nothing: {times(ratio)} the size of the float32 model "
            f"({size(artifact.size_bytes)}), promised is {times(promised_size or 0)}"
        )
        reason = said if verdict.verdict == "pass" else f"{verdict.reason}; {said}"
        verdict = replace(verdict, verdict="fail", reason=reason, codes=(*verdict.codes, "not-quantized"))
    base = float_of(artifact.recipe)
    slower = latency_ratio(artifact.recipe, base, measured, rounds)
    if slower is not None and _is_slower(artifact.recipe, measured, rounds):
        said = f"slower than float: {times(slower)} the latency of {base}"
        verdict = replace(verdict, reason=f"{verdict.reason}; {said}", codes=(*verdict.codes, "slower-than-float"))
    return verdict


def _is_slower(recipe: str, measured: Mapping[str, object], rounds: Sequence[Round]) -> bool:
    """Beyond doubt; an emulator's speed says nothing of the board it looks like."""
    own = measured[recipe]
    assert isinstance(own, Measurement)
    return not own.conditions.get("emulated") and bool(is_slower(recipe, float_of(recipe), measured, rounds))


def with_suggestion(
    recipe: str, verdicts: Mapping[str, Verdict], known: frozenset[str], features: frozenset[str], searchable: bool
) -> Verdict:
    """The verdict with the recipe to try next, where one of its codes has any.

    Args:
        recipe: whose verdict.
        verdicts: of all recipes on this target.
        known: every recipe there is.
        features: of the target's processor, with its architecture among them; empty when it is not known.
        searchable: whether deploy.yaml says what may be lost, which `auto` needs.
    """
    verdict = verdicts[recipe]
    code = next((code for code in verdict.codes if code in _NEXT), None)
    if code is None:
        return verdict
    family = recipe.partition("-")[0]
    try:
        precision = decoded(recipe)[1][0]
    except ValueError:
        return verdict  # a third party's own name: nothing is known of what lies near it
    chain = _NEXT[code].get(precision, _NEXT[code]["*"])
    plain = f"{family}-{precision}"
    # Without an option it may do: `w4` and `s8s8` give something up for what they gain.
    candidates = [plain, *(f"{family}-{name}" for name in chain)]
    if code == "differs-on-device" and "x86_64" in features and not features & _VNNI:
        candidates.insert(0, f"{family}-int8-w7")
    for name in dict.fromkeys(candidates):
        if name == recipe or name not in known or (name.endswith("-auto") and not searchable):
            continue
        other = verdicts.get(name)
        if other is None:
            return replace(verdict, suggestion=f"try {name}")
        if other.verdict == "pass" and code not in other.codes:
            return replace(verdict, suggestion=f"take {name}: it passes here")
    return replace(verdict, suggestion=f"keep {family}-float32")
