"""Source models: one module per kind, loaded by name so that listing them imports no framework."""

from collections.abc import Mapping

# Source kind -> the class that reads it.
EXPORTERS: Mapping[str, str] = {
    "keras": "pipeline.exporters.keras:KerasSource",
    "saved_model": "pipeline.exporters.saved_model:SavedModelSource",
    "onnx": "pipeline.exporters.onnx:OnnxSource",
    "pytorch": "pipeline.exporters.torch_source:TorchSource",
}
# Source kind -> formats it can be exported to.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "keras": ("tflite", "onnx"),
    "saved_model": ("tflite", "onnx"),
    "onnx": ("onnx",),
    "pytorch": ("tflite", "onnx", "pt"),
}
