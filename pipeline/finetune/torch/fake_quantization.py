"""Rounding to a quantizer's grid in float arithmetic: `pipeline.finetune.keras.fake_quantization` in PyTorch.

Grids and gradients are the same and say there where they come from. Activations have a gradient written out, which
keeps nothing but the tensor itself until it is needed.
"""

from typing import Any

import torch

_LEAST_BOUND = 1e-9  # ai-edge-quantizer's own: no scale is zero


def fake_quantize_weights(weights: torch.Tensor, clip: torch.Tensor, *, bits: int, axis: int) -> torch.Tensor:
    """The weights as integer × scale, symmetric per channel of `axis`: the largest weight, or `clip` where that is
    smaller, becomes the largest integer, which is always used."""
    limit = 2.0 ** (bits - 1) - 1
    largest = weights.abs().amax(others(weights, axis), keepdim=True)
    scale = torch.where(clip < largest, clip, largest).clamp_min(_LEAST_BOUND) / limit
    return _straight_through_round(weights / scale).clamp(-limit, limit) * scale


def fake_quantize_activations(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """x on the int8 grid of the range (low, high), which is widened to contain zero: zero is always on the grid."""
    on_grid: torch.Tensor = _OnGrid.apply(x, low.clamp_max(0.0), high.clamp_min(0.0))  # type: ignore[no-untyped-call]
    return on_grid


def others(weights: torch.Tensor, axis: int) -> list[int]:
    """All axes but that of the channels."""
    return [n for n in range(weights.ndim) if n != axis]


def _straight_through_round(x: torch.Tensor) -> torch.Tensor:
    return x + (torch.round(x) - x).detach()


class _OnGrid(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        scale = _scale(low, high)
        zero_point = torch.round(-128.0 - low / scale)
        integer = (torch.round(x / scale) + zero_point).clamp(-128.0, 127.0)
        return (integer - zero_point) * scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Inside: x + rounding error × scale. Outside: the end of the grid, which is the range's end moved by the
        rounding error of the zero point × scale."""
        x, low, high = ctx.saved_tensors
        scale = _scale(low, high)
        steps, exact = x / scale, -128.0 - low / scale
        zero_point = torch.round(exact)
        integer = torch.round(steps)
        below, above = integer + zero_point < -128.0, integer + zero_point > 127.0
        outside = below | above
        moved = zero_point - exact
        by_scale = torch.where(outside, torch.where(above, 255.0 - moved, -moved), integer - steps)
        zero = torch.zeros((), dtype=upstream.dtype)
        gradient_low = torch.where(outside, upstream, zero).sum()
        gradient_scale = (upstream * by_scale).sum() / 255.0
        return torch.where(outside, zero, upstream), gradient_low - gradient_scale, gradient_scale


def _scale(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    return (high - low).clamp_min(_LEAST_BOUND) / 255.0
