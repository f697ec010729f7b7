"""The preprocessing that runs on devices is the host's, and what its times advise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from pipeline.measuring.whole import Prepared, advice, alike, folded_way
from pipeline.samples.preprocess import STEPS as HOST_STEPS
from pipeline.samples.preprocess import Step, Steps, apply_steps
from targets.agent.edge.preparing import STEPS, encoded
from targets.parts import Part, Way, WholeWay
from targets.records import Absent, TensorSpec

READ = TypeAdapter(Steps)
PIXELS = np.random.default_rng(0).integers(0, 256, (13, 18, 3), dtype=np.uint8)
CASES: list[Any] = [
    {"center_crop": 8}, {"center_crop": [7, 12]}, {"crop": {"top": 2, "left": 3, "height": 5, "width": 6}},
    *({"resize": {"size": [9, 11], "filter": name}} for name in ("nearest", "bilinear", "bicubic", "lanczos", "area")),
    {"resize": {"size": 21, "keep_aspect": True}}, {"scale": "1/255"}, {"scale": {"by": 0.1, "offset": -1}},
    {"mean_std": {"mean": [120, 110, 100], "std": [60, 61, 62]}}, {"layout": "nchw"}, "grayscale",
    {"pad": {"size": [16, 19], "value": 7}}, {"dtype": "float16"}, {"dtype": "int32"},
]  # fmt: skip


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.int16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_step_gives_on_a_device_what_it_gives_here(case: Any, kind: type) -> None:
    (step,) = READ.validate_python([case])
    array = PIXELS.astype(kind) if kind is not np.float32 else PIXELS / np.float32(3.7)
    ((name, options),) = step.describe().items()
    here, there = step.apply(array), STEPS[name](array, **options)
    assert (here.dtype, here.shape) == (there.dtype, there.shape)
    assert np.array_equal(here, there)


def test_no_step_is_missing_on_devices() -> None:
    assert STEPS.keys() == HOST_STEPS.keys()


UNIT = TensorSpec(name="x", shape=(1, 4, 4, 3), dtype="uint8", scale=1 / 255)


def way(steps: list[Step], tensor: TensorSpec) -> Way:
    told = {"scale": tensor.scale, "zero_point": tensor.zero_point, "dtype": tensor.dtype, "batch": True}
    return Way(
        raw="r", given="g", kind="image", steps=tuple(s.describe() for s in steps), tensor=told, outputs=()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "tensor", "kept"),
    [
        ([{"center_crop": 4}, {"scale": "1/255"}], UNIT, ["center_crop"]),
        ([{"scale": {"by": "2/255", "offset": -1}}], replace(UNIT, scale=2 / 255, zero_point=128), []),
        ([{"mean_std": {"mean": [128], "std": [64]}}], replace(UNIT, scale=1 / 64, zero_point=128), []),
        ([{"mean_std": {"mean": [120, 110, 100], "std": [60, 61, 62]}}], UNIT, None),
        ([{"scale": "1/255"}], replace(UNIT, scale=0.9 / 255), None),
        ([{"scale": "1/255"}], replace(UNIT, dtype="float32", scale=0.0), None),
        ([{"scale": "1/255"}, {"resize": 4}], UNIT, None),
    ],
)
def test_normalising_is_left_out_where_the_input_type_does_it(
    steps: list[Any], tensor: TensorSpec, kept: list[str] | None
) -> None:
    read = READ.validate_python(steps)
    whole = way(read, tensor)
    folded = folded_way(whole, read, PIXELS, tensor)
    if kept is None:
        assert folded is None
        return
    assert folded and [name for step in folded.steps for name in step] == kept
    # The same bytes reach the model on both ways, but for how halves are rounded.
    long = encoded(apply_steps(read, PIXELS), whole.tensor)
    short = encoded(apply_steps([step for step in read if step.step in kept], PIXELS), whole.tensor)
    assert np.abs(long.astype(int) - short.astype(int)).max() <= 1


def test_what_the_times_advise() -> None:
    steps = READ.validate_python([{"resize": 4}, {"scale": "1/255"}])
    prepared = Prepared(way=way(steps, UNIT), paths={}, folded=None, inside=False, takes="float32", quantized=True)
    parts = {"decode": 300.0, "resize": 10.0, "scale": 250.0, "model input": 60.0, "inference": 380.0}
    found = WholeWay(
        target="pi", runtime="r", runtime_version="1", delegate="", runs=30, input_steps=0.0,
        parts=tuple(Part(name=name, us=us) for name, us in parts.items()),
    )  # fmt: skip
    first, second = advice(found, prepared, None, tflite=True)
    assert first.startswith("normalisation is 31% of the time: accept uint8 input and fold it into the first layer")
    assert "litert-int8-pixels" in first and second.startswith("decoding is 30% of the time")
    (of_float, _) = advice(found, replace(prepared, quantized=False), None, tflite=False)
    assert of_float.endswith("as the recipe onnx-float32-pixels does")
    assert "as the host does" in alike(found)
    assert "up to 2 steps" in alike(replace(found, input_steps=2.0))
    assert "NaN" in alike(replace(found, input_steps=Absent(reason="it holds NaN")))
