"""The modules that make a program's graph behave as if it were quantized."""

from dataclasses import dataclass

import numpy as np
import torch

from pipeline.finetune.clipping import best_clip_share, largest_weight
from pipeline.finetune.torch.fake_quantization import fake_quantize_activations, fake_quantize_weights


@dataclass(slots=True)
class Mode:
    """What the modules of one graph do now: quantize, observe ranges, or (neither) compute in float."""

    quantizing: bool = False
    observing: bool = False


class QuantizedKernel(torch.nn.Module):
    """Gives a kernel on the grid of `bits`, clipped per channel at a learned value; `bias` is trained beside it."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, mode: Mode, *, bits: int, axis: int, name: str
    ) -> None:
        super().__init__()
        self.mode, self.bits, self.axis, self.name = mode, bits, axis, name
        self.weight = torch.nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else torch.nn.Parameter(bias.detach().clone())
        values = self.weight.detach().numpy()
        self.start = torch.from_numpy(largest_weight(values, axes=(axis,)))
        self.best = torch.from_numpy(best_clip_share(values, bits=bits, axes=(axis,))).log()
        self.exponent = torch.nn.Parameter(torch.zeros_like(self.start))

    def clip(self, *, best: bool) -> None:
        """Begin with the clip of least rounding error, or with none."""
        with torch.no_grad():
            self.exponent.copy_(self.best if best else torch.zeros_like(self.best))

    def on_grid(self) -> torch.Tensor:
        clip = self.start * self.exponent.exp()
        return fake_quantize_weights(self.weight, clip, bits=self.bits, axis=self.axis)

    def forward(self) -> torch.Tensor:
        return self.on_grid() if self.mode.quantizing else self.weight


class QuantizedActivation(torch.nn.Module):
    """A tensor on its int8 grid, whose range begins as observed and is learned; with `fixed`, as the runtime has it."""

    def __init__(self, name: str, mode: Mode, fixed: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.name, self.mode, self.fixed = name, mode, fixed
        self.seen: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None
        low, high = fixed or (0.0, 0.0)
        self.low, self.high = torch.tensor(low), torch.tensor(high)
        if fixed is None:
            self.low_exponent = torch.nn.Parameter(torch.zeros(()))
            self.high_exponent = torch.nn.Parameter(torch.zeros(()))

    def range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The range now. An end at zero stays there: what a ReLU gives has no negative part to spend integers on."""
        if self.fixed is not None:
            return self.low, self.high
        return self.low * self.low_exponent.exp(), self.high * self.high_exponent.exp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode.observing and self.fixed is None:
            self.seen = x.detach().numpy()
            self.low, self.high = torch.minimum(self.low, x.min()), torch.maximum(self.high, x.max())
        return fake_quantize_activations(x, *self.range()) if self.mode.quantizing else x


class Affine(torch.nn.Module):
    """A batch normalization that has nothing to be folded into, with its statistics as they are."""

    def __init__(self, factor: torch.Tensor, offset: torch.Tensor) -> None:
        super().__init__()
        self.factor, self.offset = factor, offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = [-1] + [1] * (x.ndim - 2)
        return x * self.factor.reshape(shape) + self.offset.reshape(shape)
