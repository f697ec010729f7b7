"""Each case of tests/cases/fit: what a file needs and what a device has in, the answer out. A new case is one file."""

import json
from pathlib import Path
from typing import Any

import pytest
from device_facts import facts_of

from pipeline.fit.judge import is_lowerable, judge
from pipeline.fit.records import Described, OnnxNeeds, TfliteNeeds

_CASES = Path(__file__).resolve().parents[2] / "cases" / "fit"
_SIZE_BYTES, _ACTIVATION_BYTES = 5000, 4000


def described(given: dict[str, Any]) -> Described:
    needs: TfliteNeeds | OnnxNeeds
    if given["format"] == "tflite":
        ops, custom = tuple(map(tuple, given["ops"])), tuple(given.get("custom", ()))
        needs = TfliteNeeds(ops=ops, custom=custom, min_runtime="")
    else:
        domains, foreign = tuple(given.get("domains", ())), tuple(given.get("foreign", ()))
        needs = OnnxNeeds(ir=given["ir"], opset=given["opset"], domains=domains, ops=foreign)
    return Described(
        format=given["format"],
        size_bytes=_SIZE_BYTES,
        needs=needs,
        activation_bytes=_ACTIVATION_BYTES,
        integer=given.get("integer", False),
        wide_integer=False,
    )


@pytest.mark.parametrize("case", sorted(_CASES.glob("*.json")), ids=lambda path: path.stem)
def test_case(case: Path) -> None:
    wanted = json.loads(case.read_text(encoding="utf-8"))
    changes = {k: tuple(v) if isinstance(v, list) else v for k, v in wanted["facts"].items()}
    fit = judge(described(wanted["model"]), facts_of(**changes))
    assert fit.answer == wanted["answer"], fit
    assert sorted({reason.code for reason in fit.reasons}) == wanted["codes"]
    assert is_lowerable(fit) == wanted.get("lowerable", False)
    assert fit.runtime == wanted.get("runtime", fit.runtime)
    for text in wanted["says"]:
        assert text in f"{fit.text}\n{fit.remedy}"
    if fit.answer in ("no", "unsure"):
        assert fit.remedy, "bad news without what to do about it"
