"""Source models: one module per kind, loaded by name so that listing them imports no framework."""

from collections.abc import Mapping

from pipeline.records import Format

# Source kind -> the class that reads it.
EXPORTERS: Mapping[str, str] = {
    "keras": "pipeline.exporters.keras:KerasSource",
    "keras_h5": "pipeline.exporters.keras_h5:H5Source",
    "saved_model": "pipeline.exporters.saved_model:SavedModelSource",
    "onnx": "pipeline.exporters.onnx:OnnxSource",
    "tflite": "pipeline.exporters.tflite:TfliteSource",
    "quantized_onnx": "pipeline.exporters.onnx:QuantizedOnnxSource",
    "quantized_tflite": "pipeline.exporters.tflite:TfliteSource",
    "pytorch": "pipeline.exporters.torch_source:TorchSource",
}
# Source kind -> formats it can be exported to.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "keras": ("tflite", "onnx"),
    "keras_h5": ("tflite", "onnx"),
    "saved_model": ("tflite", "onnx"),
    "onnx": ("onnx",),
    "tflite": ("tflite",),
    "quantized_onnx": ("onnx",),
    "quantized_tflite": ("tflite",),
    "pytorch": ("tflite", "onnx", "pt"),
}
# Kinds of which a file may hold weights alone, for the model that `source.factory` builds.
WITH_FACTORY = frozenset({"keras_h5", "pytorch"})
# Files that are a runtime's own format already; from Keras and TensorFlow a SavedModel is made first.
OWN_FORMAT = frozenset({"onnx", "tflite", "quantized_onnx", "quantized_tflite"})
QUANTIZED: Mapping[str, Format] = {"quantized_onnx": "onnx", "quantized_tflite": "tflite"}
# (from, to) -> why there is no way.
NOT_AVAILABLE: Mapping[tuple[str, str], str] = {
    ("onnx", "tflite"): "the converters from ONNX to TFLite pin a TensorFlow, NumPy and onnx of years ago; "
    "give the model that the ONNX file was made from",
    ("tflite", "onnx"): "no kept converter from TFLite to ONNX takes a graph of today's TensorFlow; "
    "give the model that the TFLite file was made from",
}
