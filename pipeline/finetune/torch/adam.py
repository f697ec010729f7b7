"""Adam with steps in proportion to what they move: `pipeline.finetune.keras.adam` in PyTorch, and why."""

import math
from collections.abc import Iterable, Sequence

import torch

from pipeline.finetune.torch.layers import QuantizedKernel

_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8  # as in the paper


class RelativeAdam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980); the rate is per root mean square of a kernel at the start."""

    def __init__(self, trained: Sequence[torch.nn.Parameter], kernels: Iterable[QuantizedKernel]) -> None:
        sizes: dict[int, float] = {}
        for kernel in kernels:
            size = float(kernel.weight.detach().square().mean().sqrt()) or 1e-3
            # A bias may be zero for now: it moves as the kernel does.
            sizes |= {id(moved): size for moved in (kernel.weight, kernel.bias) if moved is not None}
        self._trained = trained
        self._sizes = [sizes.get(id(parameter), 1.0) for parameter in trained]
        self._first = [torch.zeros_like(parameter) for parameter in trained]
        self._second = [torch.zeros_like(parameter) for parameter in trained]
        self._steps = torch.zeros(())
        self.tensors = [*self._first, *self._second, self._steps]

    @torch.no_grad()
    def apply(self, rate: float) -> None:
        """One step by the gradients of all parameters, which are forgotten."""
        self._steps += 1.0
        steps = float(self._steps)
        unbiased = math.sqrt(1 - _SECOND**steps) / (1 - _FIRST**steps)
        for parameter, size, first, second in zip(self._trained, self._sizes, self._first, self._second, strict=True):
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            first.mul_(_FIRST).add_(gradient, alpha=1 - _FIRST)
            second.mul_(_SECOND).addcmul_(gradient, gradient, value=1 - _SECOND)
            parameter.addcdiv_(first, second.sqrt().add_(_EPSILON), value=-rate * size * unbiased)
            parameter.grad = None
