"""Host inference, one module per model format."""

from collections.abc import Mapping

RUNTIMES: Mapping[str, str] = {
    "tflite": "pipeline.runtimes.litert:LiteRTModel",
    "onnx": "pipeline.runtimes.onnx:OnnxModel",
    "pt": "pipeline.runtimes.torch:TorchModel",
}
