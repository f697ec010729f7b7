"""Learned ranges find their tensors whatever these are called and however they lie in memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.calibration.learned import LearnedRange, beginnings, fingerprint, placed, read_learned, write_learned

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(1, 6, 5, 3)).astype(np.float32)
OTHER = RANDOM.normal(size=(1, 6, 5, 3)).astype(np.float32)


def learned(name: str, values: np.ndarray, high: float) -> LearnedRange:
    return LearnedRange(name=name, low=-1.0, high=high, holds=fingerprint(values))


def shown(tensors: list[tuple[str, np.ndarray]]) -> Callable[..., None]:
    def show(take: Callable[[str, np.ndarray], None]) -> None:
        for name, values in tensors:
            take(name, values)

    return show


def test_a_range_is_found_in_another_layout_after_float_noise_and_a_round_trip(tmp_path: Path) -> None:
    write_learned(tmp_path / "learned", [learned("image", IMAGE, 2.0), learned("other", OTHER, 3.0)])
    channels_first = np.ascontiguousarray(IMAGE.transpose(0, 3, 1, 2)) * np.float32(1 + 1e-6)
    tensors = [("Transpose__7:0", channels_first), ("flat", IMAGE.reshape(1, -1)), ("twice", 2 * IMAGE)]
    tensors.append(("upsampled", IMAGE.repeat(2, axis=1).repeat(2, axis=2)))
    ranges, lost = placed(read_learned(tmp_path / "learned"), shown(tensors))
    assert ranges == dict.fromkeys(("Transpose__7:0", "flat", "upsampled"), (-1.0, 2.0))
    assert lost == ("other",)


def test_what_is_constant_empty_or_not_finite_gets_no_range() -> None:
    zeros = np.zeros((1, 4), np.float32)
    tensors = [("zeros", zeros), ("empty", np.zeros((0,), np.float32)), ("nan", np.full(4, np.nan, np.float32))]
    assert placed([learned("zeros", zeros, 1.0)], shown(tensors)) == ({}, ("zeros",))


def test_ranges_of_an_export_are_found_for_the_tensors_of_the_source() -> None:
    held = {"image": fingerprint(IMAGE), "other": fingerprint(OTHER), "lost": fingerprint(IMAGE + OTHER)}
    tensors = [("constant", np.ones(3, np.float32)), ("nhwc", IMAGE.transpose(0, 3, 1, 2)), ("second", OTHER)]
    ranges = {"nhwc": (-2.5, 3.0), "second": (-1.0, 1.5), "elsewhere": (0.0, 1.0)}
    assert beginnings(held, ranges, shown(tensors)) == {"image": (-2.5, 3.0), "other": (-1.0, 1.5)}
