"""The search against landscapes that are known: what it may not exceed, what it must find, what it may not claim."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import BlockError, Drop, Precision, Trial
from pipeline.search.strategy import Mix, choose, cost, finalists, loss, pareto, search

LATENCY_MS: Mapping[Precision, float] = {"float32": 4, "float16": 4, "int16x8": 90, "int8": 1, "int8x4": 1}
SIZE_BYTES: Mapping[Precision, int] = {"float32": 400, "float16": 200, "int16x8": 100, "int8": 100, "int8x4": 50}
NOISE: Mapping[Precision, float] = {"float32": 0, "float16": 0.001, "int16x8": 0.01, "int8": 1, "int8x4": 6}
OFFERS: tuple[Precision, ...] = ("float16", "float32", "int16x8")


@dataclass
class Landscape:
    """A device and a test set: each block adds its noise to the loss, and a repair takes some of it away."""

    noises: dict[str, float]
    allowed: float = 1.0
    uncertainty: float = 0.0
    bias_helps: float = 1.0  # factor on the noise
    refuses_float16_mixes: bool = False
    asked: list[Mix] = field(default_factory=list)

    def ranking(self) -> list[BlockError]:
        total = sum(self.noises.values()) or 1
        worst_first = sorted(self.noises.items(), key=lambda item: -item[1])
        return [
            BlockError(
                block=name,
                ops=(name,),
                types=("CONV_2D",),
                place=list(self.noises).index(name),
                compute_share=1 / len(self.noises),
                op_sqnr_db=30,
                output_sqnr_db=30,
                loss_share=noise / total,
            )
            for name, noise in worst_first
        ]

    def ask(self, mix: Mix) -> Trial:
        self.asked.append(mix)
        precisions = list(mix.precisions.values())
        factor = self.bias_helps if "bias" in mix.repairs else 1.0
        value = sum(self.noises[name] * NOISE[p] * factor for name, p in mix.precisions.items())
        high = value + self.uncertainty * value
        refused = self.refuses_float16_mixes and "float16" in precisions and len(set(precisions)) > 1
        verdict = "refused" if refused else "meets" if high <= self.allowed else "unsure"
        if verdict == "unsure" and value > self.allowed:
            verdict = "misses"
        return Trial(
            name=mix.name,
            blocks={},
            repairs=mix.repairs,
            verdict=verdict,  # type: ignore[arg-type]
            drops=(Drop(metric="m", value=value, low=value, high=high, allowed=self.allowed),),
            sqnr_db=0.0,
            samples=10,
            size_bytes=sum(SIZE_BYTES[p] for p in precisions),
            int8_share=precisions.count("int8") / len(precisions),
            latency_ms=sum(LATENCY_MS[p] for p in precisions) if verdict == "meets" else None,
        )

    def find(self, most: int = 40, by_size: bool = False) -> tuple[Trial, Mix, tuple[Trial, ...]]:
        found = search(self.ask, self.ranking(), OFFERS, (("bias",),), most=most, by_size=by_size)
        name = choose(found.trials, by_size)
        return next(t for t in found.trials if t.name == name), found.mixes[name], found.trials


def test_int8_that_does_is_taken_at_once() -> None:
    landscape = Landscape({"a": 0.1, "b": 0.2})
    trial, mix, _ = landscape.find()
    assert (set(mix.precisions.values()), trial.verdict) == ({"int8"}, "meets")
    assert [asked.name for asked in landscape.asked] == ["float32", "int8"]


def test_a_repair_that_is_enough_is_preferred_to_float() -> None:
    landscape = Landscape({"a": 0.9, "b": 0.9}, bias_helps=0.5)
    trial, mix, _ = landscape.find()
    assert (set(mix.precisions.values()), mix.repairs, trial.name) == ({"int8"}, ("bias",), "int8 + bias")


def test_only_what_spoils_it_leaves_int8() -> None:
    noises = {f"b{i}": 0.01 for i in range(30)} | {"bad": 5.0, "worse": 9.0, "large": 0.4}
    _, mix, trials = Landscape(noises).find()
    assert {name for name, precision in mix.precisions.items() if precision != "int8"} == {"bad", "worse"}
    assert mix.precisions["bad"] == "float16", "as fast as float32 and smaller"
    assert len(trials) <= 20


def test_an_interval_that_reaches_over_is_no_yes() -> None:
    _, mix, trials = Landscape({"a": 0.9, "b": 0.01}, uncertainty=0.5).find()
    assert mix.precisions["a"] != "int8"
    assert next(trial for trial in trials if trial.name == "int8").verdict == "unsure"


def test_what_a_tool_refuses_to_mix_is_done_without() -> None:
    landscape = Landscape({"a": 3.0, "b": 0.1}, refuses_float16_mixes=True)
    trial, mix, _ = landscape.find()
    assert trial.verdict == "meets"
    assert mix.precisions == {"a": "float32", "b": "int8"}


def test_a_block_that_cannot_be_int8_stays_out() -> None:
    landscape = Landscape({"a": 0.1, "b": 0.1})
    ranking = [
        BlockError(
            block=error.block,
            ops=error.ops,
            types=error.types,
            place=error.place,
            compute_share=0.5,
            op_sqnr_db=0,
            output_sqnr_db=0,
            loss_share=0,
            refused="no kernel" if error.block == "a" else "",
        )
        for error in landscape.ranking()
    ]
    found = search(landscape.ask, ranking, OFFERS, (), most=40)
    assert all(mix.precisions["a"] != "int8" for mix in found.mixes.values())
    assert found.mixes[choose(found.trials, False)].precisions == {"a": "float32", "b": "int8"}


def test_for_size_the_least_sensitive_weights_become_int4() -> None:
    landscape = Landscape({"a": 0.05, "b": 0.01, "c": 0.02})
    _, mix, _ = landscape.find(by_size=True)
    assert "int8x4" in mix.precisions.values()
    assert mix.precisions["b"] == "int8x4"


def test_finalists_are_those_that_drift_could_have_swapped() -> None:
    _, _, trials = Landscape({"a": 3.0, "b": 0.1, "c": 0.1}).find()
    names = finalists(trials)
    assert choose(trials, False) in names
    assert all(next(t for t in trials if t.name == name).verdict == "meets" for name in names)


noises = st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=24)


@given(noises, st.floats(0.2, 2), st.floats(0, 1), st.integers(8, 40), st.booleans())
def test_whatever_the_landscape(
    values: list[float], allowed: float, uncertainty: float, most: int, by_size: bool
) -> None:
    landscape = Landscape({f"b{i}": value for i, value in enumerate(values)}, allowed, uncertainty)
    trial, _, trials = landscape.find(most, by_size)
    assert len(landscape.asked) == len(trials) <= most
    assert len({mix.key for mix in landscape.asked}) == len(landscape.asked), "no mix is judged twice"
    assert len({t.name for t in trials}) == len(trials), "names tell them apart"
    assert trial.verdict == "meets", "float32 always does"
    assert cost(trial, by_size) <= 1.05 * min(cost(t, by_size) for t in trials if t.verdict == "meets")
    best = {t.name: (cost(t, by_size), loss(t)) for t in trials if t.name in pareto(trials, by_size)}
    for point in best.values():
        assert not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in best.values())
