"""What the int8 EfficientNet-Lite0 answers on photos, calibrated by us and by the others."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.calibration.models import LITE0, Array, photos
from benchmarks.calibration.sides import Made, calibrated, input_name, quantize_static
from pipeline.calibration import OBSERVERS
from pipeline.calibration.engine import LEVELS, observe
from pipeline.calibration.methods import choose
from pipeline.calibration.observer import plan
from pipeline.config import CalibrationConfig
from pipeline.plugins import load_plugin
from pipeline.recipes.recipe import Ingredients, recipe
from pipeline.runtimes.runtime import open_model

_CALIBRATION_PHOTOS = 16  # what a user would give; the others get the same


def agreements(seed: int) -> Iterator[tuple[str, float]]:
    """(who, share of the test photos with the float model's top answer) for one choice of calibration photos."""
    from onnxruntime.quantization import CalibrationMethod

    every = photos("calibrate")
    chosen = np.random.default_rng(seed).permutation(len(every))[:_CALIBRATION_PHOTOS]
    samples, test = [every[index] for index in chosen], photos("test")
    onnx, tflite = Path(LITE0) / "lite0.onnx", Path(LITE0) / "lite0.tflite"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name, model in (("litert-int8", tflite), ("onnx-int8", onnx)):
            _ours(name, model, samples, scratch)
            yield f"ours {name}", _agreement(model, scratch / "made", test)
        for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile):
            quantize_static(onnx, scratch / "made", samples, method)
            yield f"onnxruntime {method.name}", _agreement(onnx, scratch / "made", test)
        engine, ranges = calibrated(tflite, samples)
        (scratch / "made").write_bytes(engine.quantize(ranges).quantized_model)
        yield "ai-edge-quantizer", _agreement(tflite, scratch / "made", test)


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
    ingredients = Ingredients(source=model, float_model=model, ranges=ranges, scratch=scratch)
    recipe(name).quantize(ingredients, scratch / "made")


def _agreement(reference: Path, model: Path, test: list[Array]) -> float:
    both = [_answers(path, reference.suffix[1:], test) for path in (reference, model)]
    return float(np.mean(both[0] == both[1]))


def _answers(path: Path, format: str, test: list[Array]) -> Array:
    model = open_model(format, path)
    name, output = model.inputs[0].name, model.outputs[0].name
    return np.array([model.answer({name: sample})[output].argmax() for sample in test])
