"""A quantized program as the training loop wants it.

A program has the shapes of one sample in it, so that a batch is not one call of it: `torch.vmap` makes it one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pipeline.finetune.torch.adam import RelativeAdam
from pipeline.finetune.torch.quantized_program import QuantizedProgram
from pipeline.finetune.training import Array, Lesson

# Outputs of a batch, the logits of those that are a softmax (else the outputs again), truths of the batch -> a number.
TruthLoss = Callable[[list[torch.Tensor], list[torch.Tensor], Any], torch.Tensor]


class TorchNetwork:
    """The program, Adam, and distillation with the loss for truths added to it."""

    def __init__(
        self,
        quantized: QuantizedProgram,
        truth_loss: TruthLoss | None = None,
        calibrated: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """`calibrated` are ranges by the names of the layers that learn them; what is not there begins as observed."""
        self._quantized, self._truth_loss, self._calibrated = quantized, truth_loss, calibrated or {}
        trained = [parameter for parameter in quantized.module.parameters() if parameter.requires_grad]
        self._optimizer = RelativeAdam(trained, [made for _, made in quantized.kernels])
        self._trained = trained
        self._observed: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._vectorized = True

    def watch(self, inputs: list[Array]) -> list[Array]:
        """Sample by sample: ranges cannot be observed from inside a vectorized call."""
        mode, learned = self._quantized.mode, self._quantized.learned
        mode.quantizing, mode.observing = False, True
        with torch.no_grad():
            rows = [self._quantized.module(*row) for row in zip(*map(torch.from_numpy, inputs), strict=True)]
        mode.observing = False
        for layer in learned:
            layer.seen = None
        self._observed = [(layer.low, layer.high) for layer in learned]
        half = len(self._quantized.softmax)
        return [np.stack([answer.numpy() for answer in column]) for column in zip(*rows, strict=True)][half:]

    def begin(self, *, clipped: bool, calibrated: bool) -> None:
        for _, made in self._quantized.kernels:
            made.clip(best=clipped)
        for layer, observed in zip(self._quantized.learned, self._observed, strict=True):
            low, high = self._calibrated.get(layer.name, observed) if calibrated else observed
            layer.low, layer.high = torch.as_tensor(low).clone(), torch.as_tensor(high).clone()

    def loss(self, lesson: Lesson, spreads: Sequence[float]) -> float:
        self._quantized.mode.quantizing = True
        with torch.no_grad():
            return float(self._mean_loss(lesson, spreads))

    def learn(self, parts: Sequence[Lesson], spreads: Sequence[float], rate: float) -> None:
        self._quantized.mode.quantizing = True
        total = sum(len(part.inputs[0]) for part in parts)
        for part in parts:
            (self._mean_loss(part, spreads) * (len(part.inputs[0]) / total)).backward()  # type: ignore[no-untyped-call]
        self._optimizer.apply(rate)

    def state(self) -> list[Array]:
        return [tensor.detach().numpy().copy() for tensor in self._tensors()]

    def restore(self, state: Sequence[Array]) -> None:
        with torch.no_grad():
            for tensor, values in zip(self._tensors(), state, strict=True):
                tensor.copy_(torch.from_numpy(np.reshape(values, tuple(tensor.shape))))

    def _tensors(self) -> list[torch.Tensor]:
        # The ends that ranges begin with are not trained, but a resumed training must have the same.
        ends = [end for layer in self._quantized.learned for end in (layer.low, layer.high)]
        return [*self._trained, *self._optimizer.tensors, *ends]

    def _mean_loss(self, lesson: Lesson, spreads: Sequence[float]) -> torch.Tensor:
        answers = self._answers([torch.from_numpy(array) for array in lesson.inputs])
        half = len(answers) // 2
        outputs, compared = answers[:half], answers[half:]
        loss = torch.zeros(())
        for own, wanted, softmax, spread in zip(
            compared, map(torch.from_numpy, lesson.teacher), self._quantized.softmax, spreads, strict=True
        ):
            loss = loss + (_divergence(own, wanted) if softmax else (own - wanted).square().mean() / spread)
        if self._truth_loss is None:
            return loss
        truths = None if lesson.truths is None else torch.from_numpy(lesson.truths)
        return loss + self._truth_loss(list(map(_rows, outputs)), list(map(_rows, compared)), truths)

    def _answers(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        module = self._quantized.module
        if self._vectorized:
            try:
                return list(torch.vmap(module)(*inputs))
            except (
                RuntimeError,
                NotImplementedError,
            ):  # an operator that it has no rule for, and that no loop replaces
                self._vectorized = False
        columns = zip(*(module(*row) for row in zip(*inputs, strict=True)), strict=True)
        return [torch.stack(column) for column in columns]


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """[samples, 1, …] as [samples, …]: each sample's own batch axis is in the way of a loss."""
    return tensor.flatten(0, 1) if tensor.ndim > 1 and tensor.shape[1] == 1 else tensor


def _divergence(own: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of the softmax of two sets of logits, in nats."""
    target, log_target = wanted.softmax(-1), wanted.log_softmax(-1)
    return (target * (log_target - own.log_softmax(-1))).sum(-1).mean()
