"""The training loop: seeded, with a checkpoint per epoch from which it goes on as if nothing had happened."""

import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pipeline.finetune.adam import RelativeAdam
from pipeline.finetune.quantized_model import QuantizedModel
from pipeline.finetune.settings import Settings
from pipeline.quality.outputs import write_npz

Array = np.ndarray[Any, Any]
Report = Callable[[int, int], None]
_LEAST_BATCHES = 8  # in an epoch, by smaller batches: a dozen samples in one step an epoch teach nothing
# Outputs of a batch, the logits of those that are a softmax (else the outputs again), truths of the batch -> a number.
TruthLoss = Callable[[list[Any], list[Any], Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`losses` are those of the held-out samples: before training, and after each epoch. The best one was kept."""

    losses: tuple[float, ...]
    trained: int
    held_out: int

    @property
    def best(self) -> int:
        """The epoch that was kept; 0 when training made nothing better."""
        return int(np.argmin(self.losses))


@dataclass(slots=True)
class _State:
    losses: list[float]
    best: list[Array]


def train(
    quantized: QuantizedModel,
    inputs: Sequence[Array],
    truths: Array | None,
    truth_loss: TruthLoss | None,
    settings: Settings,
    checkpoint: Path,
    report: Report,
) -> Outcome:
    """Move weights and ranges so that the quantized answers come closer to the float model's own, and to the truth.

    The float model is what `quantized` computes before this starts (knowledge distillation, Hinton et al. 2015,
    arXiv:1503.02531). Weights and ranges are afterwards those of the epoch with the least loss on held-out samples.

    Args:
        inputs: one array per model input, samples along the first axis.
        truths: samples along the first axis, for `truth_loss`, which is added to distillation.
        checkpoint: file written after every epoch; when it is there, training goes on from it.
    """
    loop = _Loop(quantized, inputs, truths, truth_loss, settings)
    state = loop.restored(checkpoint) or loop.begun()
    total = settings.epochs * loop.batches
    while len(state.losses) <= settings.epochs:
        epoch, best = len(state.losses), int(np.argmin(state.losses))
        if epoch - 1 - best >= settings.patience:
            break
        loop.run_epoch(epoch, partial(_after, report, (epoch - 1) * loop.batches, total))
        loop.judge(state)
        loop.save(state, checkpoint)
    report(total, total)
    _assign(loop.variables, state.best)
    return Outcome(losses=tuple(state.losses), trained=len(loop.trained), held_out=len(loop.held_out))


def _after(report: Report, before: int, total: int, done: int) -> None:
    report(before + done, total)


class _Loop:
    def __init__(
        self,
        quantized: QuantizedModel,
        inputs: Sequence[Array],
        truths: Array | None,
        truth_loss: TruthLoss | None,
        settings: Settings,
    ) -> None:
        self._quantized, self._inputs, self._truths, self._settings = quantized, inputs, truths, settings
        self._truth_loss = truth_loss
        count = len(inputs[0])
        order = np.random.default_rng(settings.seed).permutation(count)
        kept = min(max(1, round(settings.held_out * count)), count - 1)  # one to train on, one to judge by
        self.held_out, self.trained = np.sort(order[:kept]), np.sort(order[kept:])
        fixed = quantized.model.inputs[0].shape[0]  # a model may fix its batch size
        self._batch_size = int(fixed) if fixed else min(settings.batch_size, -(-len(self.trained) // _LEAST_BATCHES))
        self.batches = math.ceil(len(self.trained) / self._batch_size)
        self._teacher = self._observed(np.arange(count))
        self._spread = [max(float(np.var(answers)), 1e-12) for answers in self._teacher]
        self._optimizer = RelativeAdam(quantized)
        self.variables = [*quantized.model.trainable_variables, *self._optimizer.variables]
        quantized.mode.quantizing = True
        self._step, self._evaluate = (tf.function(made, autograph=False) for made in (self._train_step, self._loss))

    def _observed(self, indices: Array) -> list[Array]:
        """What distillation compares, as the float model has it; ranges begin with what is seen on the way."""
        self._quantized.mode.observing = True
        parts = [self._model(self._rows(batch)[0])[1] for batch in self._batched(indices)]
        self._quantized.mode.observing = False
        for layer in self._quantized.activations:
            layer.seen = None
        return [np.concatenate([np.asarray(part[place]) for part in parts]) for place in range(len(parts[0]))]

    def begun(self) -> _State:
        """The state before training, with that beginning of the clips that is better on the held-out samples."""
        tried: list[_State] = []
        for best in (False, True):
            for layer in self._quantized.weights:
                layer.clip(best=best)
            tried.append(_State([], []))
            self.judge(tried[-1])
        state = min(tried, key=lambda one: one.losses[0])
        _assign(self.variables, state.best)
        return state

    def run_epoch(self, epoch: int, report: Callable[[int], None]) -> None:
        """One pass over the training samples in an order of its own; the rate falls to zero along a cosine."""
        settings = self._settings
        rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / settings.epochs))
        self._optimizer.rate.assign(rate)
        order = np.random.default_rng([settings.seed, epoch]).permutation(self.trained)
        for number, batch in enumerate(self._batched(order)):
            self._step(*self._rows(batch))
            report(number + 1)

    def judge(self, state: _State) -> None:
        """Add the loss on the held-out samples to the state, and keep the variables when it is the least yet."""
        losses = [float(self._evaluate(*self._rows(batch))) * len(batch) for batch in self._batched(self.held_out)]
        loss = sum(losses) / len(self.held_out)
        if not state.losses or loss < min(state.losses):
            state.best = [np.array(variable) for variable in self.variables]
        # A loss that is no number is a diverged epoch: never the best one.
        state.losses.append(loss if math.isfinite(loss) else math.inf)

    def save(self, state: _State, path: Path) -> None:
        """Write the checkpoint under another name and rename it: a kill leaves the one before."""
        arrays = {f"now/{n}": np.array(variable) for n, variable in enumerate(self.variables)}
        arrays |= {f"best/{n}": values for n, values in enumerate(state.best)}
        write_npz(path.with_suffix(".part"), {**arrays, "losses": np.array(state.losses)})
        path.with_suffix(".part").replace(path)

    def restored(self, path: Path) -> _State | None:
        """The state of the checkpoint, its variables in place; None when there is none that can be read."""
        try:
            with np.load(path, allow_pickle=False) as found:
                now = [found[f"now/{n}"] for n in range(len(self.variables))]
                state = _State(found["losses"].tolist(), [found[f"best/{n}"] for n in range(len(self.variables))])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            return None
        _assign(self.variables, now)
        return state

    def _train_step(self, inputs: list[Any], teacher: list[Any], truths: Any) -> None:
        variables = self._quantized.model.trainable_variables
        with tf.GradientTape() as tape:
            loss = self._loss(inputs, teacher, truths)
        self._optimizer.apply(tape.gradient(loss, variables, unconnected_gradients="zero"))

    def _loss(self, inputs: list[Any], teacher: list[Any], truths: Any) -> Any:
        outputs, compared = self._model(inputs)
        loss = 0.0
        for own, wanted, softmax, spread in zip(compared, teacher, self._quantized.softmax, self._spread, strict=True):
            loss += _divergence(own, wanted) if softmax else tf.reduce_mean(tf.square(own - wanted)) / spread
        return loss if self._truth_loss is None else loss + self._truth_loss(outputs, compared, truths)

    def _model(self, inputs: list[Any]) -> tuple[list[Any], list[Any]]:
        model = self._quantized.model
        answers = model(keras.tree.pack_sequence_as(model.input, inputs), training=False)
        return answers[: len(answers) // 2], answers[len(answers) // 2 :]

    def _batched(self, indices: Array) -> list[Array]:
        size = self._batch_size
        return [indices[start : start + size] for start in range(0, len(indices), size)]

    def _rows(self, batch: Array) -> tuple[list[Any], list[Any], Any]:
        teacher = getattr(self, "_teacher", ())
        return (
            [tf.constant(array[batch]) for array in self._inputs],
            [tf.constant(array[batch]) for array in teacher],
            None if self._truths is None else tf.constant(self._truths[batch]),
        )


def _divergence(own: Any, wanted: Any) -> Any:
    """Kullback-Leibler divergence of the softmax of two sets of logits, in nats."""
    target = tf.nn.softmax(wanted)
    return tf.reduce_mean(tf.reduce_sum(target * (tf.nn.log_softmax(wanted) - tf.nn.log_softmax(own)), axis=-1))


def _assign(variables: Sequence[Any], values: Sequence[Array]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(np.reshape(value, variable.shape))  # a scalar comes back from a file with one axis
