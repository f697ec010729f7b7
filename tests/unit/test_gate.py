"""Evidence to verdict: one JSON file per case in tests/cases/gate, and what must hold for any evidence."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Artifact, MetricValue, Objective, Quality
from pipeline.stages.gate import decide
from pipeline.stages.judging import Budgets, Evidence
from targets.records import Absent, Answer, Failed, Measurement, PowerTrace, Window

CASES = sorted((Path(__file__).parents[1] / "cases" / "gate").glob("*.json"))


def evidence(recipe: str, given: dict[str, Any]) -> Evidence:
    """Everything a case does not say is unremarkable."""
    format = "onnx" if recipe.startswith("onnx") else "tflite"
    artifact = Artifact(
        recipe=recipe,
        format=format,
        blob="b" * 64,
        size_bytes=given.get("size_bytes", 1000),
        inputs=(),
        outputs=(),
        ops_total=1,
        ops_quantized={},
        ops_left_float=(),
        tools={},
        convert_s=0.0,
        float_bytes=given.get("float_bytes", 0),
    )
    fidelity = {"sqnr_db": 40.0, "cosine": 1.0, "finite_share": 1.0, **given.get("fidelity", {})}
    metrics = {
        name: MetricValue(value=value, reference=reference, better=better)
        for name, (value, reference, better) in given.get("metrics", {}).items()
    }
    quality = Quality(
        recipe=recipe,
        fidelity={name: float(value) for name, value in fidelity.items()},
        metrics=metrics,
        samples=3,
        golden_inputs="",
        golden_outputs="",
    )
    return Evidence(
        artifact=artifact,
        quality=quality,
        measured=measured(given),
        promised_size=given.get("promised_size"),
        features=frozenset(given.get("features", ())),
        again={number: process for number, ms in enumerate(given.get("again", [])) if (process := again(given, ms))},
    )


def again(given: dict[str, Any], warm_ms: list[float]) -> Measurement | None:
    """A further process; one round is not of every candidate."""
    found = measured({**given, "warm_ms": warm_ms})
    return found if warm_ms and isinstance(found, Measurement) else None


def measured(given: dict[str, Any]) -> Measurement | Failed:
    if "failed" in given:
        return Failed(code="unreachable", message=given["failed"])
    warm_ns = tuple(int(1e6 * ms) for ms in given.get("warm_ms", [10.0] * 20))
    power_w = given.get("power_w")
    return Measurement(
        target="t",
        blob="b" * 64,
        runtime="onnxruntime",
        runtime_version="1",
        delegate="",
        threads=1,
        load_ns=1,
        first_ns=1,
        warmup_ns=(),
        warm_ns=warm_ns,
        load_peak_rss_bytes=1,
        peak_rss_bytes=given.get("peak_rss_bytes") or Absent(reason="no /proc"),
        energy=Absent(reason="no power meter") if power_w is None else metered(power_w, **given.get("power", {})),
        answer=Answer(max_steps=float(given.get("max_steps", 0.0)), finite=given.get("finite", True)),
        conditions=given.get("conditions", {}),
    )


def metered(power_w: float, **changes: Any) -> PowerTrace:
    """Five windows of 10 s with 1000 inferences each, idle at half of that power, by a perfect meter."""
    windows, power, second = [], [], 10**9
    for number in range(11):
        busy = number % 2 == 1
        start_ns = number * 12 * second
        windows.append(
            Window(kind="busy" if busy else "idle", start_ns=start_ns, end_ns=start_ns + 10 * second, runs=1000 * busy)
        )
        power += [power_w if busy else power_w / 2] * 12
    return PowerTrace(
        **{
            "meter": "m",
            "scope": "board",
            "time_ns": tuple(at * second for at in range(len(power))),
            "power_w": tuple(power),
            "windows": tuple(windows),
            **changes,
        }
    )


def test_there_are_cases() -> None:
    assert len(CASES) >= 15


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    found = {
        target: {recipe: evidence(recipe, given) for recipe, given in by_recipe.items()}
        for target, by_recipe in case["evidence"].items()
    }
    budgets = Budgets(**{"max_drop": {}, **case.get("budgets", {})})
    targets = case.get("targets", list(found))
    decision = decide(found, targets, budgets, case.get("objective", "latency"))
    expected = case["expect"]
    assert expected.keys() <= {
        "status",
        "chosen",
        "chosen_by_target",
        "verdicts",
        "reasons",
        "codes",
        "suggestions",
        "reason",
    }
    assert decision.status == expected["status"]
    assert decision.chosen == expected["chosen"]
    for target, chosen in expected.get("chosen_by_target", {}).items():
        assert decision.chosen_by_target[target] == chosen
    for target, by_recipe in expected.get("verdicts", {}).items():
        assert {recipe: v.verdict for recipe, v in decision.verdicts[target].items()} == by_recipe
    for recipe, words in expected.get("reasons", {}).items():
        assert words in decision.verdicts[targets[0]][recipe].reason
    judged = decision.verdicts[targets[0]] if "codes" in expected or "suggestions" in expected else {}
    for recipe, codes in expected.get("codes", {}).items():
        assert list(judged[recipe].codes) == codes
    for recipe, suggestion in expected.get("suggestions", {}).items():
        assert judged[recipe].suggestion == suggestion
    assert expected.get("reason", "") in decision.reason


RECIPES = ["litert-float32", "litert-int8", "onnx-int8"]
one = st.fixed_dictionaries(
    {},
    optional={
        "size_bytes": st.integers(1, 3000),
        "fidelity": st.fixed_dictionaries({"sqnr_db": st.floats(-20, 60), "finite_share": st.sampled_from([1.0, 0.5])}),
        "warm_ms": st.lists(st.floats(0.001, 50), min_size=1, max_size=8),
        "peak_rss_bytes": st.integers(1, 3000),
        "power_w": st.floats(0.1, 10),
        "max_steps": st.floats(0, 6),
        "finite": st.booleans(),
        "failed": st.just("gone"),
    },
)
every = st.dictionaries(
    st.sampled_from(["pi", "board"]), st.dictionaries(st.sampled_from(RECIPES), one, max_size=3), min_size=1
)


@given(every, st.sampled_from(get_args(Objective)), st.one_of(st.none(), st.integers(1, 3000)))
def test_what_is_chosen_passes_everywhere(given_: dict[str, Any], objective: Objective, size: int | None) -> None:
    found = {t: {r: evidence(r, g) for r, g in by.items()} for t, by in given_.items()}
    targets = ["pi", "board"] if len(found) == 2 else list(found)
    budgets = Budgets(size_bytes=size, max_drop={}, min_fidelity_db=10.0)
    decision = decide(found, targets, budgets, objective)
    assert (decision.status == "pass") == (decision.chosen is not None)
    assert decision.reason
    for target in targets:
        passing = {r for r, v in decision.verdicts.get(target, {}).items() if v.verdict == "pass"}
        assert (decision.chosen_by_target[target] in passing) if passing else decision.chosen_by_target[target] is None
        if decision.chosen:
            assert decision.chosen in passing
        for recipe in passing:
            seen = found[target][recipe]
            assert isinstance(seen.measured, Measurement)
            assert seen.quality.fidelity["finite_share"] == 1
            assert seen.quality.fidelity["sqnr_db"] >= 10
            assert seen.measured.answer.finite
            assert size is None or seen.artifact.size_bytes <= size
    if decision.chosen and len(targets) == 1:
        assert decision.chosen == decision.chosen_by_target[targets[0]]


@given(every, st.integers(1, 3000))
def test_a_tighter_budget_never_makes_a_verdict_better(given_: dict[str, Any], size: int) -> None:
    found = {t: {r: evidence(r, g) for r, g in by.items()} for t, by in given_.items()}
    order = {"fail": 0, "inconclusive": 1, "pass": 2}
    loose, tight = (
        decide(found, list(found), Budgets(size_bytes=limit, max_drop={}), "size") for limit in (None, float(size))
    )
    for target, by_recipe in tight.verdicts.items():
        for recipe, verdict in by_recipe.items():
            assert order[verdict.verdict] <= order[loose.verdicts[target][recipe].verdict]


@given(st.permutations(RECIPES))
def test_the_order_of_recipes_does_not_choose(order: list[str]) -> None:
    warm = {"litert-float32": 30.0, "litert-int8": 10.0, "onnx-int8": 20.0}
    found = {"pi": {r: evidence(r, {"warm_ms": [warm[r] + 0.01 * i for i in range(20)]}) for r in order}}
    assert decide(found, ["pi"], Budgets(max_drop={}), "latency").chosen == "litert-int8"
