"""Verdicts on latency judged by how often they are right, on machines where something else runs now and then."""

from collections.abc import Mapping
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
from synthetic_device import measurement
from test_gate import evidence

from pipeline.stages.gate import decide
from pipeline.stages.judging import Budgets, Evidence
from pipeline.stages.rounds import MOST_ROUNDS, contested, rounds_of
from targets.records import Measurement

FLOAT, INT8 = "litert-float32", "litert-int8"


class Machine:
    """Processes differ by 2 %; each is slowed by another's load with a chance of one in three, down to half."""

    def __init__(self, int8: float, loaded: float, seed: int) -> None:
        self.cost = {FLOAT: 10e6, INT8: 10e6 * int8}
        self.loaded, self.random = loaded, np.random.default_rng(seed)
        self.processes = 0

    def process(self, recipe: str) -> Measurement:
        self.processes += 1
        slowed = self.random.uniform(1.2, 2) if self.random.random() < self.loaded else 1.0
        noise = np.exp(self.random.normal(0, 0.02) + np.abs(self.random.normal(0, 0.03, 30)))
        return measurement(recipe, (self.cost[recipe] * slowed * noise).astype(np.int64))

    def evidence(self, budgets: Budgets) -> dict[str, Evidence]:
        """As the measure stage goes about it."""
        found = {name: replace(evidence(name, {}), measured=self.process(name)) for name in (FLOAT, INT8)}
        while asked := contested(found, budgets, "latency"):
            number = len(rounds_of(found))
            found |= {n: replace(found[n], again={**found[n].again, number: self.process(n)}) for n in sorted(asked)}
        return found


def verdicts(found: Mapping[str, Evidence], budgets: Budgets) -> tuple[str, ...]:
    return decide({"pi": found}, ["pi"], budgets, "latency").verdicts["pi"][INT8].codes


NO_BUDGET = Budgets(max_drop={})


@pytest.mark.parametrize(("loaded", "most_wrong"), [(0.0, 0.01), (1 / 3, 0.05)])
def test_slower_than_float_is_not_said_for_something_elses_load(loaded: float, most_wrong: float) -> None:
    machines = [Machine(1.0, loaded, seed) for seed in range(200)]
    wrong = sum("slower-than-float" in verdicts(machine.evidence(NO_BUDGET), NO_BUDGET) for machine in machines)
    assert wrong <= most_wrong * 200
    if loaded:
        naive = [Machine(1.0, loaded, seed) for seed in range(200)]
        fooled = sum(np.median(m.process(INT8).warm_ns) > 1.05 * np.median(m.process(FLOAT).warm_ns) for m in naive)
        assert fooled > 0.2 * 200, "else the load is no test"
    else:
        assert median(machine.processes for machine in machines) == 2, "the ordinary case costs nothing"


@pytest.mark.parametrize(("int8", "loaded", "least"), [(1.2, 0.0, 0.98), (1.5, 0.0, 0.99), (25.0, 1 / 3, 1.0)])
def test_slower_than_float_is_said_where_it_is_true(int8: float, loaded: float, least: float) -> None:
    machines = [Machine(int8, loaded, seed) for seed in range(100)]
    said = sum("slower-than-float" in verdicts(machine.evidence(NO_BUDGET), NO_BUDGET) for machine in machines)
    assert said >= least * 100
    assert all(machine.processes <= 2 + 2 * MOST_ROUNDS for machine in machines)


@pytest.mark.parametrize(("limit_ms", "over"), [(9.5, True), (13.0, False)])
def test_one_loaded_process_breaks_no_budget(limit_ms: float, over: bool) -> None:
    budgets = Budgets(max_drop={}, latency_p90_ms=limit_ms)
    wrong = 0
    for seed in range(100):
        codes = verdicts(Machine(1.0, 0.15, seed).evidence(budgets), budgets)
        wrong += ("over-budget" in codes) != over
    assert wrong <= 0.1 * 100
