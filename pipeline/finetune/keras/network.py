"""A quantized Keras model as the training loop wants it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.finetune.keras.adam import RelativeAdam
from pipeline.finetune.keras.quantized_model import QuantizedModel
from pipeline.finetune.training import Array, Lesson

# Outputs of a batch, the logits of those that are a softmax (else the outputs again), truths of the batch -> a number.
TruthLoss = Callable[[list[Any], list[Any], Any], Any]


class KerasNetwork:
    """The model, Adam, and distillation with the loss for truths added to it."""

    def __init__(
        self,
        quantized: QuantizedModel,
        truth_loss: TruthLoss | None = None,
        calibrated: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """`calibrated` are ranges by the names of the layers that learn them; what is not there begins as observed."""
        self._quantized, self._truth_loss, self._calibrated = quantized, truth_loss, calibrated or {}
        self._learned = [layer for layer in quantized.activations if layer.fixed is None]
        self._observed: list[tuple[float, float]] = []
        self._optimizer = RelativeAdam(quantized)
        # The ends that ranges begin with are no variables of the training, but a resumed one must have the same.
        ends = [end for layer in self._learned for end in (layer.low, layer.high)]
        self._variables = [*quantized.model.trainable_variables, *self._optimizer.variables, *ends]
        self._gradients, self._loss = (tf.function(made, autograph=False) for made in (self._traced, self._mean_loss))
        self._apply = tf.function(self._optimizer.apply, autograph=False)

    def watch(self, inputs: list[Array]) -> list[Array]:
        self._quantized.mode.quantizing, self._quantized.mode.observing = False, True
        answers = self._model([tf.constant(array) for array in inputs])[1]
        self._quantized.mode.observing = False
        for layer in self._learned:
            layer.seen = None
        self._observed = [(float(layer.range()[0]), float(layer.range()[1])) for layer in self._learned]
        return [np.asarray(answer) for answer in answers]

    def begin(self, *, clipped: bool, calibrated: bool) -> None:
        for layer in self._quantized.weights:
            layer.clip(best=clipped)
        for layer, observed in zip(self._learned, self._observed, strict=True):
            low, high = self._calibrated.get(layer.name, observed) if calibrated else observed
            layer.low.assign(low)
            layer.high.assign(high)

    def loss(self, lesson: Lesson, spreads: Sequence[float]) -> float:
        self._quantized.mode.quantizing = True
        return float(self._loss(*_tensors(lesson), tf.constant(spreads, tf.float32)))

    def learn(self, parts: Sequence[Lesson], spreads: Sequence[float], rate: float) -> None:
        self._quantized.mode.quantizing = True
        self._optimizer.rate.assign(rate)
        total = sum(len(part.inputs[0]) for part in parts)
        gradients: list[Any] = []
        for part in parts:
            share = tf.constant(len(part.inputs[0]) / total)
            found = self._gradients(*_tensors(part), tf.constant(spreads, tf.float32), share)
            gradients = [a + b for a, b in zip(gradients, found, strict=True)] if gradients else found
        self._apply(gradients)

    def state(self) -> list[Array]:
        return [np.array(variable) for variable in self._variables]

    def restore(self, state: Sequence[Array]) -> None:
        for variable, value in zip(self._variables, state, strict=True):
            variable.assign(np.reshape(value, variable.shape))  # a scalar comes back from a file with one axis

    def _traced(self, inputs: list[Any], teacher: list[Any], truths: Any, spreads: Any, share: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            loss = share * self._mean_loss(inputs, teacher, truths, spreads)
        variables = self._quantized.model.trainable_variables
        return list(tape.gradient(loss, variables, unconnected_gradients="zero"))

    def _mean_loss(self, inputs: list[Any], teacher: list[Any], truths: Any, spreads: Any) -> Any:
        outputs, compared = self._model(inputs)
        loss = 0.0
        for n, (own, wanted, softmax) in enumerate(zip(compared, teacher, self._quantized.softmax, strict=True)):
            loss += _divergence(own, wanted) if softmax else tf.reduce_mean(tf.square(own - wanted)) / spreads[n]
        return loss if self._truth_loss is None else loss + self._truth_loss(outputs, compared, truths)

    def _model(self, inputs: list[Any]) -> tuple[list[Any], list[Any]]:
        model = self._quantized.model
        answers = model(keras.tree.pack_sequence_as(model.input, inputs), training=False)
        return answers[: len(answers) // 2], answers[len(answers) // 2 :]


def _tensors(lesson: Lesson) -> tuple[list[Any], list[Any], Any]:
    return (
        [tf.constant(array) for array in lesson.inputs],
        [tf.constant(array) for array in lesson.teacher],
        None if lesson.truths is None else tf.constant(lesson.truths),
    )


def _divergence(own: Any, wanted: Any) -> Any:
    """Kullback-Leibler divergence of the softmax of two sets of logits, in nats."""
    target = tf.nn.softmax(wanted)
    return tf.reduce_mean(tf.reduce_sum(target * (tf.nn.log_softmax(wanted) - tf.nn.log_softmax(own)), axis=-1))
