"""Adam with steps in proportion to what they move.

A weight of 0.01 and one of 1 need different steps, and so do weights and the logarithms of ranges; one learning rate
that suits networks of every scale is one relative to it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from pipeline.finetune.keras.quantized_model import QuantizedModel

_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8  # as in the paper


class RelativeAdam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980); the rate is per root mean square of a layer's kernel at the start."""

    def __init__(self, quantized: QuantizedModel) -> None:
        sizes: dict[int, float] = {}
        for layer in quantized.weights:
            variables = layer.inner.trainable_variables
            rms = [float(np.sqrt(np.mean(np.square(np.asarray(variable))))) for variable in variables]
            for variable, own in zip(variables, rms, strict=True):
                # A bias may be zero for now: it moves as the kernel does.
                sizes[id(variable)] = (own if len(variable.shape) > 1 else rms[0]) or 1e-3
        self._trained = quantized.model.trainable_variables
        self._sizes = [sizes.get(id(variable), 1.0) for variable in self._trained]
        self._first = [tf.Variable(tf.zeros(variable.shape)) for variable in self._trained]
        self._second = [tf.Variable(tf.zeros(variable.shape)) for variable in self._trained]
        self._steps = tf.Variable(0.0)
        self.rate = tf.Variable(0.0, trainable=False)
        self.variables = [*self._first, *self._second, self._steps]

    def apply(self, gradients: Sequence[Any]) -> None:
        """One step of all variables that the model trains."""
        self._steps.assign_add(1.0)
        unbiased = tf.sqrt(1 - _SECOND**self._steps) / (1 - _FIRST**self._steps)
        for variable, size, first, second, gradient in zip(
            self._trained, self._sizes, self._first, self._second, gradients, strict=True
        ):
            first.assign(_FIRST * first + (1 - _FIRST) * gradient)
            second.assign(_SECOND * second + (1 - _SECOND) * tf.square(gradient))
            step = self.rate * size * unbiased * first / (tf.sqrt(second) + _EPSILON)
            variable.assign(tf.convert_to_tensor(variable) - step)
