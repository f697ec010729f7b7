"""Writes mobilenet_v2.tflite and .onnx to a folder; a process of its own, because TensorFlow's memory stays."""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from benchmarks.calibration.models import images
from pipeline.exporters.source import open_source
from pipeline.stages import export_jobs


def make(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    net = keras.applications.MobileNetV2(weights=None, input_shape=(224, 224, 3))
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5  # eight batches settle the statistics
    for seed in range(8):
        net(np.concatenate(list(images(8, seed=100 + seed))), training=True)
    with tempfile.TemporaryDirectory() as scratch_name:
        scratch = Path(scratch_name)
        net.save(scratch / "net.keras")
        source = open_source("keras", scratch / "net.keras", signature="", scratch=scratch)
        source.fix_shapes({source.inputs[0].name: (1, 224, 224, 3)})
        source.save(scratch / "source")
        for suffix in ("tflite", "onnx"):
            made = scratch / suffix
            made.mkdir()
            more = {"opset": 17, "archived": True} if suffix == "onnx" else {}
            convert = getattr(export_jobs, f"to_{suffix}")
            convert(source=scratch / "source", scratch=made, report=lambda done, total: None, **more)
            (folder / f"mobilenet_v2.{suffix}").write_bytes((made / "model").read_bytes())


if __name__ == "__main__":
    make(Path(sys.argv[1]))
