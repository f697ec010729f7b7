"""What is added to distillation when the right answers are known."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.finetune.keras.network import TruthLoss
from pipeline.finetune.truths import are_classes, single_output, spread
from pipeline.samples.user_function import call, load_function


def truth_loss(function: str, base: Path, names: list[str], truths: np.ndarray[Any, Any] | None) -> TruthLoss | None:
    """The user's function (`qat.loss`), else cross-entropy for class numbers and squared error for other truths.

    None without either. The function gets a dict of output name -> tensor [N, …] and the truths [N, …] (None without
    `qat.truth`), and returns a scalar tensor; it is traced once, so that it is to be written with TensorFlow's ops.

    Raises:
        ConversionFailed: there is no telling which of several outputs the truths are for.
    """
    if function:
        made = load_function(function, base)
        return lambda outputs, _, truth: call(function, made, dict(zip(names, outputs, strict=True)), truth)
    if truths is None:
        return None
    single_output(names)
    if are_classes(truths):
        return lambda _, compared, truth: _cross_entropy(compared[0], truth)
    wide = spread(truths)
    return lambda outputs, _, truth: tf.reduce_mean(tf.square(outputs[0] - tf.cast(truth, tf.float32))) / wide


def _cross_entropy(scores: Any, classes: Any) -> Any:
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=scores)
    return tf.reduce_mean(losses)
