"""Image metrics against a true image: output [1, H, W, C] or [1, C, H, W], truth the same without the batch axis.

Values are clipped to 0…data_range first, as a display would. An image with NaN or infinity gets the worst score.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from pipeline.errors import InputError

from .metrics import MetricScore, Outputs, mean_score, needed, one_output

# Identical images have an infinite PSNR; 100 dB is beyond what 16 bits can hold (98 dB), and keeps drops finite.
PSNR_CAP_DB = 100.0
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, full range
_SSIM_WINDOW = 11  # the side of the Gaussian window (sigma 1.5, truncated at 3.5) of Wang et al. 2004

# scikit-image is annotated in part only.
_similarity: Callable[..., Any] = structural_similarity

Floats = NDArray[np.float64]


class _Image:
    name: str
    unit = ""
    worst: float

    def __init__(self, *, output: str = "", data_range: float = 1.0) -> None:
        self._output = output
        self._range = data_range
        self._scores: list[float] = []

    def update(self, outputs: Outputs, truth: NDArray[Any] | None) -> None:
        got = one_output(outputs, self._output, self.name)
        expected = needed(truth, self.name)
        if got.shape != expected.shape:
            raise InputError(
                f"{self.name}: the output is {list(got.shape)}, the truth {list(expected.shape)}",
                hint="crop or resize in `truth` so that both have one size (and one layout)",
            )
        # A little beyond is a bicubic filter's overshoot; far beyond is another scale.
        if expected.size and not -0.5 * self._range <= expected.min() <= expected.max() <= 1.5 * self._range:
            raise InputError(
                f"{self.name}: the truth is in {expected.min():g}–{expected.max():g}, not in 0–{self._range:g}",
                hint="add `scale: 1/255` to the steps of `truth`, or give the metric its `data_range`",
            )
        if not np.isfinite(got).all():
            self._scores.append(self.worst)
            return
        self._scores.append(self.score(self._clipped(got), self._clipped(expected)))

    def _clipped(self, array: NDArray[Any]) -> Floats:
        return np.clip(_channels_last(array.astype(np.float64), self.name) / self._range, 0.0, 1.0)

    @abstractmethod
    def score(self, got: Floats, expected: Floats) -> float:
        """Score two images [H, W, C] in 0–1."""

    def result(self) -> dict[str, MetricScore]:
        return {self.name: mean_score(self._scores, "higher", self.unit)}


class Psnr(_Image):
    """Peak signal-to-noise ratio over all channels, mean over images; 0…100 dB."""

    name, unit, worst = "psnr", "dB", 0.0

    def score(self, got: Floats, expected: Floats) -> float:
        error = float(np.mean((got - expected) ** 2))
        return min(PSNR_CAP_DB, -10.0 * float(np.log10(error))) if error > 0 else PSNR_CAP_DB


class PsnrY(Psnr):
    """PSNR of the luma alone (BT.601, full range), as super-resolution is judged; 0…100 dB.

    Papers that follow MATLAB's rgb2ycbcr use the 16–235 range: the same images score 1.32 dB more there.
    """

    name = "psnr-y"

    def score(self, got: Floats, expected: Floats) -> float:
        return super().score(_luma(got), _luma(expected))


class Ssim(_Image):
    """Structural similarity with the Gaussian window of Wang et al. (2004), mean over channels and images; −1…1."""

    name, worst = "ssim", -1.0

    def score(self, got: Floats, expected: Floats) -> float:
        if min(got.shape[:2]) < _SSIM_WINDOW:
            raise InputError(
                f"ssim: an image of {got.shape[0]}×{got.shape[1]} is smaller than its window",
                hint=f"it takes {_SSIM_WINDOW}×{_SSIM_WINDOW} and more",
            )
        similarity = _similarity(
            got,
            expected,
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        return float(similarity)


def _channels_last(image: Floats, metric: str) -> Floats:
    if image.ndim == 2:
        return image[:, :, None]
    if image.ndim == 3 and image.shape[2] in (1, 3):
        return image
    if image.ndim == 3 and image.shape[0] in (1, 3):
        return image.transpose(1, 2, 0)
    raise InputError(
        f"{metric}: {list(image.shape)} is no image", hint="it takes [H, W, C], [C, H, W] or [H, W], C 1 or 3"
    )


def _luma(image: Floats) -> Floats:
    return image if image.shape[2] == 1 else (image @ _LUMA)[:, :, None]
