"""Which of a calibration's two files of ranges a recipe is given."""

import pytest

from pipeline.recipes.recipe import recipe
from pipeline.records import Ranges
from pipeline.stages.quantize import _fitting

RANGES = Ranges(
    format="tflite",
    model="",
    blob="chosen",
    extremes="extremes",
    sketch="",
    sketch_digest="",
    method="best",
    percentile=99.99,
    chosen_methods={},
    tensors=0,
    dead_tensors=(),
    constant_tensors=(),
    unstable_tensors={},
    coverage=(),
    samples=0,
    passes=1,
    predicted_peak_bytes=0,
    budget_bytes=0,
    findings=(),
    tools={},
)


@pytest.mark.parametrize("name", ["litert-int8", "litert-int8-w4", "litert-qat-int8-w4", "onnx-int8", "litert-auto"])
def test_eight_bits_take_the_chosen_ranges(name: str) -> None:
    assert _fitting(recipe(name), RANGES) == "chosen"


def test_sixteen_bits_lose_no_value() -> None:
    assert _fitting(recipe("litert-int16x8"), RANGES) == "extremes"
