"""SavedModel → TFLite with TensorFlow's own converter. The float export and the two recipes that are the converter's
own options (`float16` and `Optimize.DEFAULT`) all pass here."""

from pathlib import Path

import tensorflow as tf

from pipeline.exporters.saved_model import SIGNATURE


def convert(saved_model: Path, *, default_optimization: bool = False, float16: bool = False) -> bytes:
    """Convert the (shape-fixed) SavedModel folder.

    Args:
        saved_model: folder with the signature `serving_default`.
        default_optimization: `tf.lite.Optimize.DEFAULT` without data: dynamic-range int8.
        float16: store weights in half precision.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=[SIGNATURE])
    if default_optimization or float16:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if float16:
        converter.target_spec.supported_types = [tf.float16]
    converted: bytes = converter.convert()
    return converted
