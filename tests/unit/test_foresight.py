"""What memory a run will take is said before, and is what was promised."""

from pipeline.stages.foresight import announced, free_memory_bytes, predicted_peak_bytes


def test_within_what_is_promised() -> None:
    for model_bytes in (10_000, 336_000_000, 1_900_000_000):
        assert model_bytes < predicted_peak_bytes(model_bytes) <= 6 * model_bytes + 600_000_000


def test_a_host_with_too_little_is_warned() -> None:
    assert announced(336_000_000, None) == "will take about 2.28 GB of memory at most, quantizing included"
    assert announced(336_000_000, 4_000_000_000) == announced(336_000_000, None)
    assert announced(336_000_000, 1_000_000_000).endswith("; only 1.00 GB is free here")


def test_this_host_has_memory() -> None:
    free = free_memory_bytes()
    assert free is None or free > 1_000_000
