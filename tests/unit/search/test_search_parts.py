"""Blocks, shares of the loss, early rejection, and what is said about the result."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.search.ops import Op, blocks, compute_shares, int8_share
from pipeline.search.sensitivity import Probe, explained, ranked
from pipeline.search.testing import chosen_samples, looks, rejected


def op(name: str, reads: Sequence[str], *, macs: int = 0, quantizable: bool = True, int8: bool = False) -> Op:
    return Op(
        name=name, type=name.upper(), reads=tuple(reads), writes=(name,), macs=macs, quantizable=quantizable, int8=int8
    )


CHAIN = [
    op("conv1", ["x"], macs=100),
    op("relu", ["conv1"]),
    op("shape", ["x"], quantizable=False),
    op("conv2", ["relu"], macs=300),
    op("pool", ["conv2"]),
    op("add", ["pool", "relu"]),
    op("flat", ["add"]),
]


def test_a_block_is_an_op_with_weights_and_what_follows() -> None:
    assert [block.ops for block in blocks(CHAIN)] == [("conv1", "relu"), ("conv2", "pool"), ("add", "flat")]
    assert [block.output for block in blocks(CHAIN)] == ["relu", "pool", "flat"]


@given(st.integers(1, 30), st.integers(1, 12))
def test_merging_keeps_every_op_once_and_in_order(count: int, most: int) -> None:
    ops = [op(f"c{i}", [f"c{i - 1}"], macs=i + 1) for i in range(count)]
    found = blocks(ops, most)
    assert len(found) == min(count, most)
    assert [name for block in found for name in block.ops] == [o.name for o in ops]
    assert sum(block.macs for block in found) == sum(o.macs for o in ops)


def test_shares_of_the_compute() -> None:
    assert compute_shares(CHAIN)["conv2"] == 0.75
    assert int8_share([op("a", [], macs=3, int8=True), op("b", [], macs=1)]) == 0.75
    assert int8_share([]) == 0


def test_the_ranking_names_the_culprit_and_its_share() -> None:
    grouped = blocks(CHAIN)
    probes = {
        "conv1": Probe(op_sqnr_db=40, output_sqnr_db=40),
        "conv2": Probe(op_sqnr_db=20, output_sqnr_db=20),
        "add": Probe(op_sqnr_db=0, output_sqnr_db=0, refused="no kernel"),
    }
    first, second, third = ranked(grouped, probes, 400)
    assert (first.block, first.refused, first.loss_share) == ("add", "no kernel", 0)
    assert (second.block, third.block) == ("conv2", "conv1")
    assert second.loss_share == pytest.approx(100 / 101)
    assert second.compute_share == 0.75


def test_the_cause_is_what_16_bit_activations_take_away() -> None:
    grouped, quiet = blocks(CHAIN), Probe(op_sqnr_db=60, output_sqnr_db=60)
    probes = {block.name: Probe(op_sqnr_db=20, output_sqnr_db=20) for block in grouped}
    error = ranked(grouped, probes, 400)[0]
    assert explained(error, quiet, {"float16": quiet}).cause == "activations"
    assert explained(error, Probe(op_sqnr_db=20, output_sqnr_db=20.5), {"float16": quiet}).cause == "weights"
    # The first that takes 99 % of the error away, not the one that takes most.
    exact = Probe(op_sqnr_db=200, output_sqnr_db=200)
    found = explained(error, quiet, {"float16": quiet, "float32": exact})
    assert (found.fix, found.fix_sqnr_db) == ("float16", 60)
    worse = Probe(op_sqnr_db=10, output_sqnr_db=10)
    assert explained(error, quiet, {"float16": worse}).fix is None


@given(st.lists(st.floats(-1, 0.5), max_size=64))
def test_nothing_within_the_margin_is_rejected(drops: list[float]) -> None:
    assert not rejected(drops, 0.5)


def test_early_rejection_seldom_errs_and_saves_most_of_the_work() -> None:
    random, wrong, seen = np.random.default_rng(0), 0, []
    for _ in range(400):
        # Right at the margin, the hardest case for not rejecting; and far over it, the one that must be quick.
        drops = random.normal(0.5, 0.3, 200)
        wrong += any(rejected(list(drops[:count]), 0.5) for count in looks(200))
        hopeless = random.normal(1.0, 0.3, 200)
        seen.append(next((c for c in sorted(looks(200)) if rejected(list(hopeless[:c]), 0.5)), 200))
    assert wrong / 400 < 0.03  # five looks at 3 standard errors; small samples have heavy tails
    assert np.mean(seen) < 20


def test_samples_of_its_own_where_there_are_enough() -> None:
    assert sorted(chosen_samples(39, 200)) == list(range(39))
    assert sorted(chosen_samples(100, 200)) == list(range(0, 100, 2))
    assert chosen_samples(100, 10) == chosen_samples(100, 200)[:10]
