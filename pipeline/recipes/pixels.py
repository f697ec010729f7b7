"""Recipes whose model takes the image's bytes: `scale` and `mean_std` of the preprocessing are folded into the model.

The model of another recipe is made first. Then its input becomes uint8: without any op more where the bytes' own scale
and zero point can be the input's quantization, else by an explicit conversion before the first layer. Never by changing
the first layer's weights, since a convolution that pads would pad with another value than 0. What the two answer on
real samples must be the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConversionFailed
from pipeline.recipes import float32, litert_static, onnx_static
from pipeline.recipes.recipe import Ingredients, Inputs, Recipe, Start
from pipeline.records import Format
from pipeline.runtimes.pixels import Affine, write_pixels
from pipeline.runtimes.runtime import open_model
from pipeline.samples.preprocess import Dtype, Layout, MeanStd, Scale, Step, apply_steps

_SAMPLES = 3  # that both models answer
_MOST_STEPS = 1.0  # of 8 bits of an output's range: an input just between two steps may be rounded either way


def affine(name: str, steps: Sequence[Step], raw: Any) -> Affine:
    """What a byte of the input means by its steps, given one sample as it is read.

    Raises ConversionFailed when the steps are others than can be folded, or the sample has no bytes before them.
    """
    begin = next((n for n, step in enumerate(steps) if isinstance(step, Scale | MeanStd)), len(steps))
    after = steps[begin:]
    if not after:
        raise ConversionFailed(
            f"{name}: `preprocess` has no `scale` or `mean_std` to fold", hint="use the recipe without -pixels"
        )
    if alien := [step for step in after if not isinstance(step, Scale | MeanStd | Layout | Dtype)]:
        raise ConversionFailed(
            f"{name}: `{alien[0].step}` comes after normalising, and is no part of a model",
            hint="put it before `scale` and `mean_std`",
        )
    before = apply_steps(list(steps[:begin]), raw)
    if before.dtype != np.uint8 or before.ndim != 3:
        raise ConversionFailed(
            f"{name}: normalising is given {before.dtype} of shape {list(before.shape)}, no image of bytes",
            hint="a model can take an image's bytes only where samples are such images",
        )
    by, offset, axis = np.ones(1), np.zeros(1), -1
    for step in after:
        if isinstance(step, Scale):
            by, offset = by * step.by, offset * step.by + step.offset
        elif isinstance(step, MeanStd):
            mean, std = np.array(step.mean), np.array(step.std)
            by, offset = by / std, (offset - mean) / std
        elif isinstance(step, Layout) and step.order == "nchw":
            axis = -3
    channels = max(len(by), len(offset))
    wide = [np.broadcast_to(values, channels) for values in (by, offset)]
    return Affine(by=tuple(map(float, wide[0])), offset=tuple(map(float, wide[1])), axis=axis)


@dataclass(frozen=True)
class Pixels:
    """Another recipe's model, with uint8 inputs that are the pixels."""

    base: float32.Float32 | litert_static.Static | onnx_static.Static  # with float32 inputs
    summary: str

    folds = True  # its ingredients need `pixels`

    @property
    def format(self) -> Format:
        return self.base.format

    @property
    def start(self) -> Start:
        return self.base.start

    @property
    def tools(self) -> tuple[str, ...]:
        return self.base.tools

    @cached_property
    def precision(self) -> str:
        return str(getattr(self.base, "precision", "float32"))

    @property
    def size_promise(self) -> float | None:
        return self.base.size_promise

    @property
    def latency_promise(self) -> float | None:
        return self.base.latency_promise

    def quantize(self, ingredients: Ingredients, output: Path) -> None:
        from pipeline.recipes.litert_pixels import take_pixels as of_litert
        from pipeline.recipes.onnx_pixels import take_pixels as of_onnx

        pixels = ingredients.pixels
        ranges = dict(ingredients.ranges)
        for name, own in pixels.items():
            tensor = _tensor(self.format, ingredients.float_model, name)
            if tensor in ranges and own.zero_point is not None:  # the steps of the bytes are the steps of the input
                ranges[tensor] = (own.offset[0], own.offset[0] + 255 * own.by[0])
        plain = ingredients.scratch / f"plain.{self.format}"
        self.base.quantize(replace(ingredients, ranges=ranges), plain)
        (of_litert if self.format == "tflite" else of_onnx)(plain, pixels, output)
        write_pixels(self.format, output, pixels)
        worst, samples = compared(self.format, plain, output, islice(ingredients.samples(), _SAMPLES))
        if worst > _MOST_STEPS:
            raise ConversionFailed(
                f"given bytes, it answers otherwise than given normalised samples: by {worst:.3g} steps of 8 bits",
                hint=f"use the recipe without -pixels, and tell us: {', '.join(pixels)}",
            )
        ingredients.note(
            f"{', '.join(pixels)} takes the image's bytes: scale and mean_std are inside; {samples} real samples are "
            f"answered as without, within {worst:.2g} steps of 8 bits"
        )

    def fallbacks(self) -> Sequence[tuple[str, Recipe]]:
        rungs: Sequence[tuple[str, Any]] = getattr(self.base, "fallbacks", tuple)()
        return [(said, replace(self, base=rung)) for said, rung in rungs]

    def why_float(self, op: str) -> str:
        return str(self.base.why_float(op))


def _tensor(format: Format, float_model: Path, name: str) -> str:
    """What calibration calls an input of the float model."""
    if format != "tflite":
        return name
    from ai_edge_litert.tools import flatbuffer_utils

    from pipeline.recipes.litert_pixels import input_tensors

    model = flatbuffer_utils.read_model(str(float_model))
    found: bytes = model.subgraphs[0].tensors[input_tensors(model)[name]].name
    return found.decode()


def compared(format: Format, plain: Path, taking_pixels: Path, samples: Iterable[Inputs]) -> tuple[float, int]:
    """How far apart the answers of both are, in steps of 8 bits of an output's range, and of how many samples."""
    before, after = open_model(format, plain), open_model(format, taking_pixels)
    worst, count = 0.0, 0
    for sample in samples:
        answers: Mapping[str, Any] = {name: np.array(array) for name, array in before.answer(sample).items()}
        for name, array in after.answer(sample).items():
            wanted = answers[name].astype(np.float64)
            step = float(np.ptp(wanted)) / 255 if wanted.size else 0.0
            apart = float(np.abs(array - wanted).max(initial=0.0))
            worst = max(worst, apart / step if step else apart * 255)
        count += 1
    return worst, count


LITERT_FLOAT32 = Pixels(float32.LITERT, "litert-float32 that takes the image's bytes: scale and mean_std are inside")
LITERT_INT8 = Pixels(litert_static.INT8, "litert-int8 that takes the image's bytes: scale and mean_std are inside")
ONNX_FLOAT32 = Pixels(float32.ONNX, "onnx-float32 that takes the image's bytes: scale and mean_std are inside")
ONNX_INT8 = Pixels(onnx_static.INT8, "onnx-int8 that takes the image's bytes: scale and mean_std are inside")
