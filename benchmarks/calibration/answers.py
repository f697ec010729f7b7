"""What the int8 EfficientNet-Lite0 answers on photos, calibrated by us and by the others."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.calibration.models import Array, laid_out, photos
from benchmarks.calibration.sides import Made, calibrated, input_name, input_shape, quantize_static
from benchmarks.lite0 import lite0
from pipeline.calibration import OBSERVERS
from pipeline.calibration.engine import LEVELS, observe
from pipeline.calibration.methods import choose
from pipeline.calibration.observer import plan
from pipeline.config import CalibrationConfig
from pipeline.plugins import load_plugin
from pipeline.recipes.recipe import Ingredients, recipe
from pipeline.runtimes.runtime import open_model

_CALIBRATION_PHOTOS = 16  # what a user would give; the others get the same


# Of the rows: those that are ours by default, and with a repair. The best of the peers is what they are held against.
OURS = ("litert-int8", "onnx-int8", "litert-int8-bias", "onnx-int8-bias", "onnx-int8-gptq")


def agreements(seed: int) -> Iterator[tuple[str, Array]]:
    """(who, share of each test photo's crops with the float model's top answer), for one choice of samples."""
    from onnxruntime.quantization import CalibrationMethod

    onnx, tflite = lite0() / "lite0.onnx", lite0() / "lite0.tflite"
    every, _ = photos(lite0(), "calibrate")
    chosen = np.random.default_rng(seed).permutation(len(every))[:_CALIBRATION_PHOTOS]
    test, names = photos(lite0(), "closer")
    samples = {path: [laid_out(every[index], input_shape(path)) for index in chosen] for path in (onnx, tflite)}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        made = scratch / "made"
        for name in OURS:
            model = tflite if name.startswith("litert") else onnx
            _ours(name, model, samples[model], scratch)
            yield f"ours {name}", _by_photo(model, made, test, names)
        for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile):
            quantize_static(onnx, made, samples[onnx], method)
            yield f"onnxruntime {method.name}", _by_photo(onnx, made, test, names)
        engine, ranges = calibrated(tflite, samples[tflite])
        made.write_bytes(engine.quantize(ranges).quantized_model)
        yield "ai-edge-quantizer", _by_photo(tflite, made, test, names)


def _ours(name: str, model: Path, samples: list[Array], scratch: Path) -> None:
    settings = CalibrationConfig()
    observer = load_plugin(OBSERVERS[model.suffix[1:]])(model, scratch)
    tensor = input_name(model)
    observation = observe(
        observer,
        Made(len(samples), lambda sample: {tensor: sample}, samples),
        plan(observer, LEVELS, int(settings.memory)),
        lambda done, total: None,
    )
    chosen = {n: choose(s, settings.method, settings.percentile) for n, s in observation.sketches().items()}
    ranges = {tensor: (one.low, one.high) for tensor, one in chosen.items()}
    (scratch / "means.npz").unlink(missing_ok=True)  # of another format
    ingredients = Ingredients(
        source=model,
        float_model=model,
        ranges=ranges,
        scratch=scratch,
        samples=lambda: ({input_name(model): sample} for sample in samples),
    )
    recipe(name).quantize(ingredients, scratch / "made")


_FLOAT: dict[Path, Array] = {}  # the float models' answers, which are always the same


def _by_photo(reference: Path, model: Path, test: list[Array], names: list[str]) -> Array:
    if reference not in _FLOAT:
        _FLOAT[reference] = _answers(reference, reference.suffix[1:], test)
    same = _FLOAT[reference] == _answers(model, reference.suffix[1:], test)
    return np.array([same[[name == one for name in names]].mean() for one in dict.fromkeys(names)])


def _answers(path: Path, format: str, test: list[Array]) -> Array:
    model = open_model(format, path)
    given, output = model.inputs[0], model.outputs[0].name
    shape = tuple(given.shape)
    return np.array([model.answer({given.name: laid_out(sample, shape)})[output].argmax() for sample in test])
