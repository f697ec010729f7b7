"""Which steps run again: the plan is what happens, and no record outlives what it was made from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import HostDiskFull
from pipeline.flow import STAGES, Progress, Results, Step, execute, forced_stages, plan
from pipeline.records import FloatOps, Refusal
from pipeline.store import Store


class Watch:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.kept: list[str] = []
        self.progress: list[tuple[str, int, int]] = []
        self.notes: list[tuple[str, str]] = []

    def started(self, step: Step) -> None:
        self.ran.append(step.label)

    def progressed(self, step: Step, done: int, total: int) -> None:
        self.progress.append((step.label, done, total))

    def noted(self, step: Step, note: str) -> None:
        self.notes.append((step.label, note))

    def finished(self, step: Step, record: object, *, reused: bool) -> None:
        if reused:
            self.kept.append(step.label)


def step(
    name: str, *needs: Step, stage: str = "quantize", answer: Callable[[], Any] | None = None, **more: Any
) -> Step:
    """A step whose record is a FloatOps that says what it was made from."""

    def run(results: Results, report: Progress) -> Any:
        report(1, 2)
        made = "".join(str(getattr(results[need], "op", "-")) for need in needs)
        return answer() if answer else FloatOps(op=f"{name}({made})", count=1, reason="")

    return Step(stage=stage, name=name, run=run, records=(FloatOps,), needs=needs, **more)


def run(steps: list[Step], store: Store, start: str | None = None) -> tuple[dict[Step, Any], Watch]:
    watch = Watch()
    return execute(steps, store, watch, forced_stages(start)), watch


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_second_run_repeats_only_what_observes_the_world(store: Store) -> None:
    a = step("a", stage="export")
    b = step("b", a)
    c = step("c", b, stage="measure", reusable=False)
    steps = [a, b, c]
    first, watch = run(steps, store)
    assert watch.ran == ["export a", "quantize b", "measure c"]
    assert watch.progress == [(label, 1, 2) for label in watch.ran]
    again, watch = run(steps, store)
    assert watch.ran == ["measure c"]
    assert again == first
    assert again[c].op == "c(b(a()))"


def test_from_a_stage_runs_it_and_all_after(store: Store) -> None:
    steps = [step("a", stage="export"), step("b", stage="validate")]
    run(steps, store)
    assert run(steps, store, "quantize")[1].ran == ["validate b"]
    assert run(steps, store, "export")[1].ran == ["export a", "validate b"]
    assert forced_stages("report") == {"report"}
    assert forced_stages(None) == frozenset()
    assert forced_stages("export") == set(STAGES)


@pytest.mark.parametrize("change", [{"settings": {"x": 1}}, {"tools": {"t": "2"}}, {"version": 2}, {"name": "z"}])
def test_a_fingerprint_covers_all_that_decides_the_result(change: dict[str, Any]) -> None:
    one = step("a", stage="export")
    other = replace(one, **change)
    assert one.fingerprint != other.fingerprint
    assert step("b", one).fingerprint != step("b", other).fingerprint
    assert step("b", one).fingerprint == step("b", replace(one)).fingerprint


def test_a_refusal_is_kept_and_passed_on(store: Store) -> None:
    refused = Refusal(stage="export", reason="cannot")
    a = step("a", stage="export", answer=lambda: refused)
    b, c = step("b", a), step("c", a, tolerant=True)
    results, _ = run([a, b, c], store)
    assert results[b] == refused
    assert results[c].op == "c(-)"
    assert run([a, b, c], store)[1].kept == ["export a", "quantize b", "quantize c"]


def test_what_was_made_without_a_killed_step_is_made_again(store: Store) -> None:
    """A converter killed for lack of memory is tried again, and so is the package that lacked its model."""
    answers: list[Any] = [
        Refusal(stage="quantize", reason="killed", transient=True),
        FloatOps(op="m", count=1, reason=""),
    ]
    a = step("a", answer=lambda: answers[0])
    b = step("b", a, stage="package", tolerant=True)
    assert run([a, b], store)[0][b].op == "b(-)"
    answers.pop(0)
    # Interrupted right after the step that had been killed: its record is there now, and the old package's too.
    assert run([a], store)[1].ran == ["quantize a"]
    assert [planned.reuse for planned in plan([a, b], store)] == [True, False]
    results, watch = run([a, b], store)
    assert watch.ran == ["package b"]
    assert results[b].op == "b(m)"


def test_a_step_that_raises_leaves_the_finished_ones(store: Store) -> None:
    def fail() -> Any:
        raise HostDiskFull("full")

    a, b = step("a", stage="export"), step("b", answer=fail)
    with pytest.raises(HostDiskFull):
        run([a, b], store)
    assert [planned.reuse for planned in plan([a, b], store)] == [True, False]


Shape = list[tuple[list[bool], bool, bool]]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(
        st.tuples(st.lists(st.booleans(), min_size=6, max_size=6), st.booleans(), st.booleans()), min_size=2, max_size=6
    ),
    rounds=st.lists(
        st.tuples(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)), st.integers(0, 6)), min_size=2, max_size=4
    ),
)
def test_the_plan_is_what_happens_and_records_are_never_stale(
    tmp_path_factory: pytest.TempPathFactory, shape: Shape, rounds: list[tuple[set[int], set[int], int]]
) -> None:
    """Any graph; between runs records get lost and steps answer differently; runs are broken off anywhere."""
    store = Store(tmp_path_factory.mktemp("flow"))
    answers = dict.fromkeys(range(6), 0)
    steps: list[Step] = []
    for number, (needs, tolerant, reusable) in enumerate(shape):
        wanted = [steps[index] for index in range(number) if needs[index]]

        def body(results: Results, report: Progress, number: int = number) -> FloatOps:
            made = ",".join(f"{need.name}{results[need].op}" for need in results)
            return FloatOps(op=f"[{answers[number]};{made}]", count=1, reason="")

        steps.append(
            Step(
                stage="quantize",
                name=str(number),
                run=body,
                records=(FloatOps,),
                needs=tuple(wanted),
                reusable=reusable,
                tolerant=tolerant,
            )
        )
    for lost, changed, stop in [*rounds, (set(), set(), 6)]:
        for number in lost & set(range(len(steps))):
            for record in store.root.glob(f"records/quantize/{number}-*.json"):
                record.unlink()
        for number in changed & lost:  # only a step that is run again can answer differently
            answers[number] += 1
        upto = steps[: max(1, stop)]
        planned = [p.step.label for p in plan(upto, store) if not p.reuse]
        results, watch = run(upto, store)
        assert watch.ran == planned
        for done in upto:
            made = ",".join(f"{need.name}{results[need].op}" for need in done.needs)
            assert results[done].op.endswith(f";{made}]"), "made from what its needs are now"
