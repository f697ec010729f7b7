"""Observing the range of every float tensor of a float model over the calibration samples, one module per format."""

from collections.abc import Mapping

OBSERVERS: Mapping[str, str] = {
    "tflite": "pipeline.calibration.litert:LiteRTObserver",
    "onnx": "pipeline.calibration.onnx:OnnxObserver",
}
