"""The peer: the same five files by hand, with nothing checked. `python -m benchmarks.overhead.bare_side FOLDER`."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer
from ai_edge_quantizer import recipe as presets
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
_SIDE = 96  # as deploy.yaml resizes
_SIGNATURE = "serving_default"


def run(folder: Path) -> None:
    """Make the five files in `folder`."""
    warnings.simplefilter("ignore")
    saved_model, float32 = folder / "saved_model", folder / "float32.tflite"
    model = keras.saving.load_model(ROOT / "models" / "esrgan_x2.keras", compile=False)
    shape = tf.TensorSpec((1, _SIDE, _SIDE, 3), tf.float32, name=model.inputs[0].name)
    model.export(saved_model, verbose=False, input_signature=[shape])
    float32.write_bytes(_converted(saved_model))
    (folder / "float16.tflite").write_bytes(_converted(saved_model, float16=True))
    (folder / "dynamic-int8.tflite").write_bytes(_converted(saved_model, optimized=True))
    ranges = _calibrated(float32)
    for name, preset in (("int8", presets.static_wi8_ai8()), ("int16x8", presets.static_wi8_ai16())):
        engine = quantizer.Quantizer(str(float32), preset)
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            engine.update_quantization_recipe(".*", end, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
        (folder / f"{name}.tflite").write_bytes(engine.quantize(ranges).quantized_model)


def _converted(saved_model: Path, *, optimized: bool = False, float16: bool = False) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=[_SIGNATURE])
    if optimized or float16:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if float16:
        converter.target_spec.supported_types = [tf.float16]
    converted: bytes = converter.convert()
    return converted


def _calibrated(float32: Path) -> dict[str, dict[str, Any]]:
    """Minimum and maximum of every float tensor over the calibration photos."""
    interpreter = Interpreter(str(float32), num_threads=2, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    index = interpreter.get_input_details()[0]["index"]
    floats = [d for d in interpreter.get_tensor_details() if d["dtype"] == np.float32 and d["name"]]
    ranges: dict[str, dict[str, Any]] = {}
    for photo in sorted((ROOT / "calibration_data" / "photos" / "calibrate").glob("*.png")):
        image = Image.open(photo).convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        interpreter.set_tensor(index, np.asarray(image, np.float32)[None] / 255)
        interpreter.invoke()
        for detail in floats:
            try:
                values = interpreter.get_tensor(detail["index"])
            except ValueError:
                continue  # a kernel's scratch tensor
            low, high = values.min(keepdims=True), values.max(keepdims=True)
            known = ranges.setdefault(detail["name"], {"min": low, "max": high})
            known["min"], known["max"] = np.minimum(known["min"], low), np.maximum(known["max"], high)
    return ranges


if __name__ == "__main__":
    run(Path(sys.argv[1]))
