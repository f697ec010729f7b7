"""The declared steps: what they compute, and how a wrong declaration is reported."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from pipeline.samples.preprocess import STEPS, Step, Steps, apply_steps, describe, digest

STEPS_OF = TypeAdapter(list[Step])
ORDERED = TypeAdapter(Steps)


def run(declared: list[Any], array: np.ndarray) -> np.ndarray:
    return apply_steps(ORDERED.validate_python(declared), array)


def reason(declared: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        ORDERED.validate_python(declared)
    [only] = caught.value.errors()
    return str(only["msg"])


images = hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 3])))
sides = st.integers(1, 24)


@given(images, sides, sides, st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "area"]), st.booleans())
def test_resize_gives_the_size_and_keeps_the_type(image, height, width, kind, floats):
    image = image.astype(np.float32) if floats else image
    result = run([{"resize": {"size": [height, width], "filter": kind}}], image)
    assert result.shape == (height, width, image.shape[2])
    assert result.dtype == image.dtype


@given(images, sides)
def test_keep_aspect_makes_the_shorter_side_the_size(image, side):
    result = run([{"resize": {"size": side, "keep_aspect": True}}], image)
    assert min(result.shape[:2]) == side
    assert (result.shape[0] >= result.shape[1]) == (image.shape[0] >= image.shape[1]) or result.shape[
        0
    ] == result.shape[1]


@given(images, sides, sides)
def test_pad_then_center_crop_is_always_possible_and_exact(image, height, width):
    result = run([{"pad": [height, width]}, {"center_crop": [height, width]}], image)
    assert result.shape == (height, width, image.shape[2])


@given(images, sides, sides)
def test_padding_keeps_every_pixel(image, height, width):
    result = run([{"pad": {"size": [height, width], "value": 7}}], image)
    extra = result.size - image.size
    assert int(result.astype(int).sum()) == int(image.astype(int).sum()) + 7 * extra


@given(images)
def test_layout_nchw_moves_the_channels_first(image):
    assert np.array_equal(run([{"layout": "nchw"}], image).transpose(1, 2, 0), image)
    assert np.array_equal(run([{"layout": "nhwc"}], image), image)


@given(images)
def test_grayscale_is_pillows_luma(image):
    if image.shape[2] == 1:
        assert np.array_equal(run(["grayscale"], image), image)
        return
    pillow = np.asarray(Image.fromarray(image).convert("L"))
    # Pillow computes in 16-bit integers: it may differ by one.
    assert np.abs(run(["grayscale"], image)[:, :, 0].astype(int) - pillow).max() <= 1


def test_uint8_bicubic_is_what_pillow_gives_everyone():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((20, 10), Image.Resampling.BICUBIC))
    assert np.array_equal(run([{"resize": {"size": [10, 20], "filter": "bicubic"}}], image), expected)


def test_area_resize_is_the_mean_of_blocks():
    image = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    result = run([{"resize": {"size": [2, 2], "filter": "area"}}], image)
    assert np.allclose(result[:, :, 0], [[2.5, 4.5], [10.5, 12.5]])


def test_scale_takes_a_fraction_and_an_offset():
    image = np.array([[[0], [51], [255]]], np.uint8)
    assert np.array_equal(run([{"scale": "1/255"}], image).ravel(), np.array([0, 0.2, 1], np.float32))
    assert np.array_equal(run([{"scale": {"by": "2/255", "offset": -1}}], image).ravel()[[0, 2]], [-1, 1])
    assert run([{"scale": 2}], image).dtype == np.float32


def test_mean_std_is_per_channel():
    image = np.ones((2, 2, 3), np.float32)
    result = run([{"mean_std": {"mean": [0, 1, 2], "std": [1, 2, 4]}}], image)
    assert np.allclose(result[0, 0], [1, 0, -0.25])


def test_crop_cuts_the_rectangle_and_center_crop_the_middle():
    image = np.arange(25, dtype=np.uint8).reshape(5, 5, 1)
    assert run([{"crop": {"top": 1, "left": 2, "height": 2, "width": 3}}], image)[0, 0, 0] == 7
    assert run([{"center_crop": 1}], image).ravel().tolist() == [12]


def test_dtype_rounds_to_integers():
    assert run([{"dtype": "int8"}], np.array([-1.6, 0.4, 126.7], np.float32)).tolist() == [-2, 0, 127]


@pytest.mark.parametrize(
    ("declared", "shape", "message"),
    [
        ([{"center_crop": 9}], (8, 8, 3), "`center_crop` cannot cut 9×9 out of 8×8"),
        ([{"crop": {"top": 0, "left": 4, "height": 1, "width": 5}}], (8, 8, 3), "`crop` the rectangle leaves"),
        ([{"resize": 4}], (8, 8), "`resize` needs [height, width, channels], got [8, 8]"),
        (["grayscale"], (8, 8, 4), "`grayscale` needs 1 or 3 channels, got 4"),
        ([{"mean_std": {"mean": [0, 0], "std": [1]}}], (8, 8, 3), "`mean` has 2 values, the sample has 3 channels"),
    ],
)
def test_a_step_that_cannot_says_so_by_name(declared, shape, message):
    with pytest.raises(ValueError) as caught:
        run(declared, np.zeros(shape, np.uint8))
    assert message in str(caught.value)


@pytest.mark.parametrize("bad", [np.array([300.0]), np.array([-1.0]), np.array([np.nan]), np.array([np.inf])])
def test_dtype_refuses_what_does_not_fit(bad):
    with pytest.raises(ValueError, match="`dtype`"):
        run([{"dtype": "uint8"}], bad)


def test_padding_with_a_value_the_type_has_not_is_refused():
    for value in (0.5, 300, -1):
        with pytest.raises(ValueError, match=r"`pad` the value .* does not exist in uint8"):
            run([{"pad": {"size": 4, "value": value}}], np.zeros((2, 2, 1), np.uint8))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ([{"scael": 1}], "unknown step `scael`: did you mean `scale`?"),
        ([{"zzz": 1}], "unknown step `zzz`: there are center_crop, crop, resize"),
        ([{"scale": 1, "pad": 2}], "a step is one name with its argument"),
        ([7], "a step is one name with its argument"),
        ([{"crop": 3}], "`crop` takes top, left, height, width"),
        ([{"scale": "a/b"}], "`a/b` is neither a number nor a fraction"),
        ([{"scale": "1/0"}], "`1/0` is neither a number nor a fraction"),
        ([{"center_crop": -1}], "a size is one number or [height, width]"),
        ([{"resize": {"size": [1, 2, 3]}}], "a size is one number or [height, width]"),
        ([{"resize": {"size": [3, 4], "keep_aspect": True}}], "`keep_aspect` takes one number"),
        ([{"layout": "nchw"}, "grayscale"], "`grayscale` reads [height, width, channels]: put it before `layout`"),
        ([{"layout": "chwn"}], "'nchw' or 'nhwc'"),
        ([{"mean_std": {"mean": [0], "std": [0]}}], "greater than 0"),
        ([{"resize": {"size": 4, "fliter": "area"}}], "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_declaration_is_reported_once_and_clearly(declared, message):
    assert message in reason(declared)


def test_every_step_survives_being_written_and_read_again():
    declared = [
        {"center_crop": 8},
        {"crop": {"top": 0, "left": 0, "height": 8, "width": 8}},
        {"resize": {"size": [4, 4], "filter": "area"}},
        {"pad": 6},
        "grayscale",
        {"mean_std": {"mean": [0], "std": [1]}},
        {"scale": "1/255"},
        {"layout": "nchw"},
        {"dtype": "float32"},
    ]
    steps = ORDERED.validate_python(declared)
    assert {step.step for step in steps} == set(STEPS)
    assert ORDERED.validate_python(ORDERED.dump_python(steps)) == steps
    assert ORDERED.dump_python(steps) == describe(steps)


def test_the_digest_is_of_what_is_meant_not_of_how_it_is_written():
    same = [STEPS_OF.validate_python([form]) for form in ({"scale": "1/4"}, {"scale": 0.25}, {"scale": {"by": 0.25}})]
    assert len({digest(describe(steps)) for steps in same}) == 1
    other = STEPS_OF.validate_python([{"scale": {"by": 0.25, "offset": 1}}])
    assert digest(describe(other)) != digest(describe(same[0]))


def test_the_json_schema_describes_steps_as_written():
    schema = ORDERED.json_schema()["items"]
    named = {name for form in schema["anyOf"] for name in form.get("properties", {})}
    assert named == set(STEPS)
