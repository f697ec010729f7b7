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
    # onnx2tf 1.29 for Python 3.11 wants TensorFlow 2.19, NumPy 1.26 and onnx 1.19; 2.6 begins at Python 3.12 and wants
    # one version of each of 18 packages, pytest among them (PyPI, November 2026).
    (
        "onnx",
        "tflite",
    ): "the one kept converter, onnx2tf, wants versions of NumPy, onnx and a dozen others that are not "
    "those here; give the model that the ONNX file was made from, or run onnx2tf in an environment of its own and give "
    "the .tflite that it writes",
    # tf2onnx knows a part of TFLite's operators, and none of the quantized ones as int8.
    ("tflite", "onnx"): "give the model that the TFLite file was made from, or see whether tf2onnx takes it "
    "(python -m tf2onnx.convert --tflite MODEL --output MODEL.onnx) and give the .onnx",
}
