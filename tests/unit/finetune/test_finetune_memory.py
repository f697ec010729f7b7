"""Parts of a batch stay within the budget, and what is said of it is what it will be."""

import pytest

from pipeline.finetune.memory import plan
from pipeline.stages.finetune import announced


@pytest.mark.parametrize(
    ("budget_bytes", "part", "said"),
    [
        (5_000_000_000, 16, "will take about 3.88 GB of memory"),
        (2_000_000_000, 6, "will take about 1.88 GB of memory: 6 of 16 samples at once, to stay within 2.00 GB"),
        (100_000_000, 1, "1 of 16 samples at once, to stay within 100 MB; one sample alone does not fit in 100 MB"),
    ],
)
def test_the_largest_part_that_fits(budget_bytes: int, part: int, said: str) -> None:
    planned = plan(sample_bytes=100_000_000, weight_bytes=15_000_000, batch=16, budget_bytes=budget_bytes)
    assert planned.part == part
    assert said in announced(planned, None)
    assert ("is free here" in announced(planned, 500_000_000)) == (planned.peak_bytes > 500_000_000)
    assert part == 1 or planned.peak_bytes <= budget_bytes
