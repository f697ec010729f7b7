"""Recipes whose model takes the image's bytes: normalising is inside, also before a convolution that pads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_model import Exported

from pipeline.errors import ConversionFailed
from pipeline.recipes.recipe import recipe
from pipeline.runtimes.pixels import Affine, pixels_of
from pipeline.runtimes.runtime import open_model
from pipeline.samples import DataSection
from pipeline.samples.preprocess import apply_steps
from pipeline.worker import Worker

NAMES = ["litert-float32-pixels", "litert-int8-pixels", "onnx-float32-pixels", "onnx-int8-pixels"]
EXACT = [{"scale": {"by": "1/64", "offset": -2}}]  # 128 means 0
HALF = [{"scale": {"by": "2/255", "offset": -1}}]  # no byte means 0
CHANNELS = [{"mean_std": {"mean": [120.5, 130, 100], "std": [50, 60, 70]}}]


@pytest.fixture(scope="module")
def images(exported: Exported) -> np.ndarray[Any, Any]:
    made = np.random.default_rng(3).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.savez(exported.folder / "bytes.npz", image=made)
    return made


def quantize(worker: Worker, exported: Exported, name: str, folder: Path, steps: list[Any]) -> tuple[Path, Any]:
    chosen = recipe(name)
    data = DataSection.model_validate({"calibrate": "bytes.npz", "test": "bytes.npz", "preprocess": steps})
    output = folder / f"{name}.{chosen.format}"
    made = worker.call(
        "pipeline.stages.candidate_jobs:quantize",
        name=name,
        source=exported.folder / "model",
        float_model=exported.model(chosen.format, "", ""),
        ranges=exported.ranges(chosen.format, "", "") if chosen.start == "ranges" else None,
        calibrate=data.spec("calibrate"),
        inputs=exported.prepared["inputs"],
        base=exported.folder,
        precisions={},
        repairs=(),
        output=output,
        scratch=folder,
    )
    return output, made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [EXACT, HALF, CHANNELS], ids=["exact", "half", "channels"])
def test_bytes_are_answered_as_normalised_samples_are(
    worker: Worker, exported: Exported, images: np.ndarray[Any, Any], tmp_path: Path, name: str, steps: list[Any]
) -> None:
    output, made = quantize(worker, exported, name, tmp_path, steps)
    (spec,) = made["inputs"]
    assert (spec.name, spec.dtype) == ("image", "uint8")
    assert any("takes the image's bytes" in note and "3 real samples" in note for note in made["notes"])
    model, plain = (
        open_model(recipe(name).format, output),
        open_model(recipe(name).format, tmp_path / f"plain.{output.suffix[1:]}"),
    )
    read = DataSection.model_validate({"calibrate": "a", "test": "a", "preprocess": steps}).spec("test").steps("image")
    for image in images:
        normalised = {"image": apply_steps(read, image)[None]}
        assert np.array_equal(model.encode(normalised)["image"][0], image), "the very bytes, not their neighbours"
        (wanted,) = plain.answer(normalised).values()
        wanted = np.array(wanted)
        (given,) = model.invoke({"image": image[None]}).values()
        assert np.abs(given - wanted).max() <= np.ptp(wanted) / 255
    if steps is EXACT and name == "litert-int8-pixels":
        assert (spec.scale, spec.zero_point) == (1 / 64, 128) and made["ops_total"] == plain_ops(
            worker, exported, tmp_path
        )


def plain_ops(worker: Worker, exported: Exported, folder: Path) -> int:
    total: int = quantize(worker, exported, "litert-int8", folder, EXACT)[1]["ops_total"]
    return total


@pytest.mark.parametrize(
    ("steps", "said"),
    [([], "no `scale` or `mean_std` to fold"), ([{"dtype": "float32"}, {"scale": 2}], "is given float32"),
     ([{"scale": 2}, {"center_crop": 4}], "`center_crop` comes after normalising")],
)  # fmt: skip
def test_what_cannot_be_folded_is_refused(
    worker: Worker, exported: Exported, images: object, tmp_path: Path, steps: list[Any], said: str
) -> None:
    with pytest.raises(ConversionFailed, match=said) as refused:
        quantize(worker, exported, "onnx-float32-pixels", tmp_path, steps)
    assert refused.value.hint


def test_channels_come_first_in_nchw() -> None:
    own = Affine(by=(0.5, 2.0), offset=(-1.0, 3.0), axis=-3)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 4), dtype=np.uint8)
    real = pixels * np.array([0.5, 2.0])[:, None, None] + np.array([-1.0, 3.0])[:, None, None]
    assert np.array_equal(own.bytes_of(real.astype(np.float32)), pixels)
    assert own.zero_point is None and Affine(by=(1 / 255,), offset=(0.0,)).zero_point == 0


def test_a_model_without_says_nothing(exported: Exported) -> None:
    assert pixels_of("tflite", exported.model("tflite", "", "")) == {}
