"""The ranking held against the task: which mixes are asked for, and what of them is told."""

from dataclasses import replace

from pipeline.records import BlockError, Drop, Precision, Trial
from pipeline.search.confirming import confirmed
from pipeline.search.strategy import Mix

BLOCK = BlockError(
    block="a",
    ops=("a",),
    types=("Conv",),
    place=0,
    compute_share=0.2,
    op_sqnr_db=10.0,
    output_sqnr_db=10.0,
    loss_share=0.5,
    fix="float16",
)
RANKING = (
    replace(BLOCK, block="refused", refused="no kernel", loss_share=0.0),
    BLOCK,
    replace(BLOCK, block="b", loss_share=0.4, fix=None),
    replace(BLOCK, block="c", loss_share=0.1),
    replace(BLOCK, block="harmless", loss_share=0.0),
)
# What each block costs in int8; a mix costs the sum.
COSTS = {"a": 0.3, "b": 0.2, "c": 0.1, "harmless": 0.0}


def judge(mix: Mix) -> Trial:
    cost = sum(COSTS[name] for name, precision in mix.precisions.items() if precision == "int8")
    drop = Drop(metric="top1", value=cost, low=cost - 0.01, high=cost + 0.01, allowed=float("inf"))
    refused = mix.precisions.get("c") == "float16"
    return Trial(
        name=mix.name,
        blocks={},
        repairs=(),
        verdict="refused" if refused else "meets",
        drops=() if refused else (drop,),
        sqnr_db=20.0,
        samples=50,
        size_bytes=1,
        int8_share=0.0,
        reason="cannot be made" if refused else "",
    )


def test_the_worst_are_mended_one_at_a_time() -> None:
    asked: list[dict[str, Precision]] = []

    def ask(mix: Mix) -> Trial:
        asked.append(dict(mix.precisions))
        return judge(mix)

    found = confirmed("tflite", RANKING, 2, ask)
    every: dict[str, Precision] = dict.fromkeys(COSTS, "int8")
    assert asked == [every, {**every, "a": "float16"}, {**every, "b": "float32"}]
    assert [(one.block, one.precision) for one in found.blocks] == [("a", "float16"), ("b", "float32")]
    assert [round(one.losses[0].value, 3) for one in found.blocks] == [0.3, 0.4]
    assert (found.samples, round(found.int8[0].value, 3), found.int8[0].metric) == (50, 0.6, "top1")


def test_what_cannot_be_made_is_said_and_what_loses_nothing_is_not_asked() -> None:
    found = confirmed("tflite", RANKING, 9, judge)
    assert [one.block for one in found.blocks] == ["a", "b", "c"]
    assert (found.blocks[2].refused, found.blocks[2].losses) == ("cannot be made", ())
