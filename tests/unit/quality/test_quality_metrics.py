"""Task metrics against values known by hand, and mistakes reported by name."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import InputError, UsageError
from pipeline.quality import MetricScore, MetricSpec, UserMetric, compare, open_metrics
from pipeline.quality.metrics import METRICS

SPECS = TypeAdapter(list[MetricSpec])
HERE = Path()


def score(spec, samples, base=HERE) -> dict[str, MetricScore]:
    metrics = open_metrics(SPECS.validate_python([spec]), base)
    for number, (output, truth) in enumerate(samples):
        outputs = output if isinstance(output, dict) else {"y": np.asarray(output)}
        metrics.update(f"s[{number}]", outputs, None if truth is None else np.asarray(truth))
    return metrics.result()


def refused(spec, output, truth, message, base=HERE):
    with pytest.raises(InputError, match=message) as caught:
        score(spec, [(output, truth)], base)
    assert caught.value.hint


# Classification


def test_top1_and_top5():
    ranks = np.array([[9, 8, 7, 6, 5, 4, 3]], np.float32)
    samples = [(ranks, truth) for truth in (0, 1, 4, 5)]
    assert score("top1", samples)["top1"].per_sample == (1, 0, 0, 0)
    assert score("top5", samples)["top5"].value == 0.75
    assert score("top1", samples)["top1"].better == "higher"


@given(hnp.arrays(np.int8, (1, 9)), st.integers(0, 8))
def test_top1_is_argmax_also_with_ties(scores, truth):
    assert score("top1", [(scores, truth)])["top1"].value == float(scores.argmax() == truth)


def test_nan_is_a_miss():
    nans = np.full((1, 6), np.nan)
    assert score("top5", [(nans, 0)])["top5"].value == 0
    assert score("top1", [([[np.nan, 1.0]], 1)])["top1"].value == 0


@pytest.mark.parametrize(
    ("spec", "output", "truth", "message"),
    [
        ("top1", [[0.1, 0.9]], 2, r"s\[0\]: top1: the truth is class 2, the output has 2 classes"),
        ("top1", [[0.1, 0.9]], -1, "class -1"),
        ("top1", [[0.1, 0.9]], 0.5, "the truth is float64"),
        ("top1", [[0.1, 0.9]], [0, 1], r"the truth is int64 \[2\]"),
        ("top1", [[0.1, 0.9]], None, "top1: there is no truth"),
        ("top5", [[0.1] * 5], 0, r"takes|the output is \[1, 5\]"),
        ("top1", np.zeros((1, 2, 2)), 0, r"the output is \[1, 2, 2\]"),
        ("top1", np.zeros((2, 2)), 0, r"the output is \[2, 2\]"),
        ("top1", {"a": np.zeros((1, 2)), "b": np.zeros((1, 2))}, 0, "2 outputs: a, b"),
        ({"name": "top1", "output": "c"}, {"a": np.zeros((1, 2))}, 0, "no output 'c'"),
    ],
)
def test_wrong_class_outputs_name_sample_and_metric(spec, output, truth, message):
    refused(spec, output, truth, message)


def test_one_of_several_outputs_can_be_chosen():
    outputs = {"a": np.array([[1.0, 0.0]]), "b": np.array([[0.0, 1.0]])}
    assert score({"name": "top1", "output": "b"}, [(outputs, 1)])["top1"].value == 1


# Images

images = hnp.arrays(np.float32, (12, 13, 3), elements=st.floats(0, 1, width=32))


@given(images)
def test_an_identical_image_has_the_best_score(image):
    for name, best in (("psnr", 100), ("psnr-y", 100), ("ssim", 1)):
        assert score(name, [(image[None], image)])[name].value == pytest.approx(best)


@given(images, images, st.sampled_from(["psnr", "psnr-y", "ssim"]))
def test_scores_are_finite_bounded_and_the_same_in_both_layouts(first, second, name):
    value = score(name, [(first[None], second)])[name].value
    assert -1 <= value <= 100
    channels_first = score(name, [(first.transpose(2, 0, 1)[None], second.transpose(2, 0, 1))])[name].value
    assert channels_first == pytest.approx(value)


def test_psnr_by_hand():
    truth = np.full((12, 12, 3), 0.5)
    assert score("psnr", [(truth[None] + 0.1, truth)])["psnr"].value == pytest.approx(20)
    assert score("psnr-y", [(truth[None] + 0.1, truth)])["psnr-y"].value == pytest.approx(20)
    red = truth + np.array([0.1, 0, 0])
    assert score("psnr-y", [(red[None], truth)])["psnr-y"].value == pytest.approx(20 - 20 * np.log10(0.299))
    wide = score({"name": "psnr", "data_range": 255}, [(truth[None] * 255 + 25.5, truth * 255)])
    assert wide["psnr"].value == pytest.approx(20)
    assert wide["psnr"].unit == "dB"


def test_psnr_is_the_mean_over_images_and_capped():
    truth = np.full((12, 12, 1), 0.5)
    found = score("psnr", [(truth[None] + 0.1, truth), (truth[None], truth)])["psnr"]
    assert found.per_sample == pytest.approx((20, 100))
    assert found.value == pytest.approx(60)


def test_values_are_clipped_to_what_a_display_shows():
    truth = np.ones((12, 12, 3))
    assert score("psnr", [(truth[None] * 3, truth)])["psnr"].value == 100


def test_a_picture_with_nan_gets_the_worst_score():
    truth = np.random.default_rng(0).random((12, 12, 3))
    broken = truth.copy()
    broken[3, 3, 0] = np.nan
    for name, worst in (("psnr", 0), ("psnr-y", 0), ("ssim", -1)):
        assert score(name, [(broken[None], truth)])[name].value == worst


def test_ssim_falls_with_noise():
    random = np.random.default_rng(0)
    truth = random.random((32, 32, 3))
    values = [
        score("ssim", [((truth + noise * random.normal(size=truth.shape))[None], truth)])["ssim"].value
        for noise in (0.02, 0.2)
    ]
    assert 1 > values[0] > values[1] > 0


@pytest.mark.parametrize(
    ("name", "output", "truth", "message"),
    [
        ("psnr", (1, 8, 8, 3), (4, 4, 3), r"psnr: the output is \[8, 8, 3\], the truth \[4, 4, 3\]"),
        ("psnr-y", (1, 8, 8, 5), (8, 8, 5), r"psnr-y: \[8, 8, 5\] is no image"),
        ("ssim", (1, 8, 8, 3), (8, 8, 3), "ssim: an image of 8×8 is smaller than its window"),
    ],
)
def test_wrong_images_are_named(name, output, truth, message):
    refused(name, np.full(output, 0.5), np.full(truth, 0.5), message)


def test_a_truth_in_another_range_is_refused():
    refused(
        "psnr", np.full((1, 8, 8, 3), 0.5), np.full((8, 8, 3), 255, np.uint8), "the truth is in 255–255, not in 0–1"
    )


# Text


def test_bits_and_perplexity_by_hand():
    samples = [([[0.25, 0.75]], 0), ([[0.25, 0.75]], 0), ([[0.0625, 0.9375]], 0)]
    found = score("bits_per_char", samples)["bits_per_char"]
    assert found.per_sample == pytest.approx((2, 2, 4))
    assert (found.better, found.unit) == ("lower", "bits")
    perplexity = score("perplexity", samples)["perplexity"]
    assert perplexity.value == pytest.approx(2 ** (8 / 3))
    assert perplexity.per_sample == pytest.approx((4, 4, 16))


@given(hnp.arrays(np.float64, (1, 5), elements=st.floats(-6, 6)), st.integers(0, 4))
def test_logits_and_their_softmax_cost_the_same(logits, token):
    exponents = np.exp(logits)
    probabilities = exponents / exponents.sum()
    kinds = [
        ({"name": "bits_per_char", "scores": kind}, array)
        for kind, array in (("logits", logits), ("probabilities", probabilities))
    ]
    values = [score(spec, [(array, token)])["bits_per_char"].value for spec, array in kinds]
    assert values[0] == pytest.approx(values[1])
    detected = score("bits_per_char", [(probabilities, token)])["bits_per_char"].value
    assert detected == pytest.approx(values[0])


def test_logits_are_detected():
    assert score("bits_per_char", [([[3.0, 3.0, -1e9]], 0)])["bits_per_char"].value == pytest.approx(1)


def test_a_nan_in_the_first_sample_does_not_decide_what_the_scores_are():
    found = score("bits_per_char", [([[np.nan, 0.75]], 1), ([[0.25, 0.75]], 0)])["bits_per_char"]
    assert found.per_sample == pytest.approx((23, 2))


def test_certainty_about_everything_does_not_win():
    ones = {"name": "bits_per_char", "scores": "probabilities"}
    assert score(ones, [([[1.0, 1.0, 1.0, 1.0]], 0)])["bits_per_char"].value == pytest.approx(2)


@pytest.mark.parametrize("row", [[1.0, 0.0], [np.nan, 1.0], [1.0, np.nan], [0.0, -np.inf]])
def test_impossible_and_nan_cost_the_most(row):
    spec = {"name": "bits_per_char", "scores": "probabilities"}
    assert score(spec, [([row], 1)])["bits_per_char"].value == 23


def test_places_and_the_last_place():
    rows = np.array([[[0.5, 0.5], [0.25, 0.75]]])
    assert score("bits_per_char", [(rows, [0, 0])])["bits_per_char"].value == pytest.approx(1.5)
    assert score("bits_per_char", [(rows, 0)])["bits_per_char"].value == pytest.approx(2)


@pytest.mark.parametrize(
    ("output", "truth", "message"),
    [
        ([[0.5, 0.5]], 2, "token 2 is outside the model's 2 classes"),
        ([[0.5, 0.5]], -1, "token -1 is outside"),
        ([[0.5, 0.5]], 0.5, "the truth float64"),
        ([[0.5, 0.5]], [0, 1], "2 token ids for 1 places"),
        ([[0.5]], 0, r"the output is \[1, 1\]"),
    ],
)
def test_wrong_text_outputs_are_named(output, truth, message):
    refused("perplexity", output, truth, message)


# The user's own


@pytest.fixture
def quality(tmp_path):
    def write(body: str) -> Path:
        (tmp_path / "quality.py").write_text("import numpy as np\n\ndef own(outputs, truth):\n" + body)
        return tmp_path

    return write


PAIRS = [([[1.0, 2.0]], 3), ([[5.0, 6.0]], 4)]


def test_a_user_function_gets_everything_stacked(quality):
    base = quality(
        "    assert outputs['y'].shape == (2, 2) and truth.tolist() == [3, 4], (outputs, truth)\n"
        "    return float(outputs['y'].sum())\n"
    )
    found = score({"path": "quality.py:own", "better": "lower", "unit": "Hz"}, PAIRS, base)
    assert found == {"own": MetricScore(value=14, better="lower", unit="Hz", per_sample=())}
    assert score("quality.py:own", PAIRS, base)["own"].better == "higher"


def test_a_user_function_may_return_names_and_scores_per_sample(quality):
    base = quality("    return {'low': outputs['y'].min(axis=1), 'n': len(truth)}\n")
    found = score(UserMetric(path="quality.py:own"), PAIRS, base)
    assert (found["low"].value, found["low"].per_sample, found["n"].value) == (3, (1, 5), 2)


def test_ragged_outputs_come_as_a_list_and_no_truth_as_none(quality):
    base = quality("    assert truth is None\n    return len(outputs['y'][1])\n")
    assert score("quality.py:own", [([[1.0]], None), ([[1.0, 2.0]], None)], base)["own"].value == 2


def test_outputs_without_a_batch_axis_reach_the_user_whole(quality):
    base = quality("    return outputs['state'].shape[1] * 10 + outputs['scalar'].ndim\n")
    outputs = {"state": np.zeros((2, 1, 3)), "scalar": np.float32(1)}
    assert score("quality.py:own", [(outputs, None)], base)["own"].value == 21


def test_the_users_metric_survives_a_runtime_that_reuses_its_buffer(quality):
    metrics = open_metrics(["quality.py:own"], quality("    return float(outputs['y'][0, 0])\n"))
    buffer = np.array([[1.0]])
    metrics.update("a", {"y": buffer}, None)
    buffer[:] = 9
    metrics.update("b", {"y": buffer}, None)
    assert metrics.result()["own"].value == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return 1 / 0\n", r"quality\.py:4: quality\.py:own raised ZeroDivisionError"),
        ("    return outputs['z']\n", r"quality\.py:4: .*KeyError: 'z'"),
        ("    return None\n", "returned nan|returned NoneType"),
        ("    return 'good'\n", "returned str"),
        ("    return float('nan')\n", "returned nan"),
        ("    return np.zeros(3)\n", r"returned \[3\] numbers for 'own', there are 2 samples"),
        ("    return {}\n", "returned no score"),
    ],
)
def test_a_user_functions_mistakes_name_file_and_line(quality, body, message):
    with pytest.raises(InputError, match=message) as caught:
        score("quality.py:own", PAIRS, quality(body))
    assert caught.value.hint


# The table


def test_every_metric_of_the_table_can_be_opened_and_is_called_as_listed():
    truth = {"image": np.full((12, 12, 3), 0.5), "class": np.asarray(1)}
    outputs = {"image": np.full((1, 12, 12, 3), 0.5), "class": np.full((1, 6), 1 / 6)}
    for name, place in METRICS.items():
        kind = "image" if ".image:" in place else "class"
        assert list(score(name, [({"y": outputs[kind]}, truth[kind])])) == [name]


def test_unknown_metrics_and_options():
    with pytest.raises(UsageError, match="unknown metric 'psnry'") as caught:
        open_metrics(["psnry"], HERE)
    assert "'psnr-y'" in caught.value.hint
    with pytest.raises(UsageError, match="unknown metric 'zzz'") as caught:
        open_metrics(["zzz"], HERE)
    assert "bits_per_char" in caught.value.hint
    with pytest.raises(UsageError, match="top1 has no option 'data_range'"):
        open_metrics(SPECS.validate_python([{"name": "top1", "data_range": 3}]), HERE)
    with pytest.raises(UsageError, match="json has no function 'no_such_name'"):
        open_metrics(["json:no_such_name"], HERE)


def test_two_metrics_of_one_name():
    metrics = open_metrics(["top1", "top1"], HERE)
    metrics.update("a", {"y": np.eye(2)[:1]}, np.asarray(0))
    with pytest.raises(UsageError, match="two of them are called 'top1'"):
        metrics.result()


def test_nothing_scored():
    for name in METRICS:
        with pytest.raises(ValueError, match="no sample"):
            open_metrics([name], HERE).result()


@pytest.mark.parametrize(
    "wrong", [{"nmae": "top1"}, {"path": "a:b", "bettre": "lower"}, {"name": "psnr", "data_range": 0}]
)
def test_wrong_metric_specs(wrong):
    with pytest.raises(ValidationError):
        SPECS.validate_python([wrong])


def test_values_stand_beside_the_float_sources():
    def one(value, better="higher"):
        return {"m": MetricScore(value=value, better=better, unit="dB", per_sample=())}

    assert compare(one(1.0), one(3.0))["m"].drop == 2
    assert compare(one(1.0, "lower"), one(3.0, "lower"))["m"].drop == -2
    with pytest.raises(InputError, match="m came for only one"):
        compare(one(1.0), {})


def test_outputs_taken_for_an_array_are_refused_and_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef f(outputs, truth): return np.argmax(outputs, -1).mean()\n"
    )
    metrics = open_metrics(["mine.py:f"], tmp_path)
    metrics.update("a", {"scores": np.array([[0.1, 0.9]])}, np.array(1))
    with pytest.raises(InputError, match="take outputs\\['scores'\\]"):
        metrics.result()
