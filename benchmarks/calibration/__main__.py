"""Calibration against onnxruntime's and ai-edge-quantizer's, on MobileNetV2 and EfficientNet-Lite0.

Times are per sample: what more samples cost more, in processes of their own, in turns. EfficientNet-Lite0 and photos
are not ours to ship: benchmarks/lite0.py fetches them.
"""

import contextlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.calibration.models import images, mobilenet_v2
from benchmarks.lite0 import lite0
from benchmarks.pairs import ROOT, Row, absent, at_most, in_turns, main, middle
from pipeline.calibration.accumulate import Accumulator, Binner
from pipeline.calibration.onnx import OnnxObserver
from pipeline.calibration.percentile import percentile_range
from pipeline.quality import paired_drop

_FEW, _MANY = 2, 18  # samples: the difference is what 16 cost
_PERCENTILE = 99.99


def rows(pairs: int) -> Iterator[Row]:
    onnx, tflite = mobilenet_v2("onnx"), mobilenet_v2("tflite")
    found = _in_turns(("ours", "onnxruntime"), onnx, pairs)
    for quantity in ("wall_s", "cpu_s"):
        ours, peer = middle(found["ours"][quantity]), middle(found["onnxruntime"][quantity])
        name = f"percentile, per sample, {quantity[:-2]} time: MobileNetV2 .onnx, onnxruntime Percentile / 6"
        yield at_most(name, ours, "ms", peer / 6, peer)
    few, many = (_run("ours-made-anew", onnx, count)["peak_bytes"] / 1e6 for count in (64, 2048))
    yield at_most("peak memory of the process, 2,048 samples against 64 + 5 %", many, "MB", 1.05 * few, few)
    try:
        lite = lite0() / "lite0.tflite"
    except (RuntimeError, OSError) as error:
        print(f"  MobileNetV2 in place of EfficientNet-Lite0: {error}", file=sys.stderr)
        lite = tflite
    found = _in_turns(("ours", "ai-edge-quantizer"), lite, pairs)
    ours, peer = middle(found["ours"]["cpu_s"]), middle(found["ai-edge-quantizer"]["cpu_s"])
    yield at_most(
        f"full histograms, per sample, cpu time: {lite.stem} .tflite, ai-edge-quantizer", ours, "ms", peer, peer
    )
    yield at_most("threshold against the exact order statistic, worst tensor", 100 * _worst_error(onnx), "%", 1.0)
    yield _agreement()


def _in_turns(sides: tuple[str, str], model: Path, pairs: int) -> dict[str, dict[str, list[float]]]:
    """Side → quantity → milliseconds that one more sample takes, once per pair."""
    found: dict[str, dict[str, list[float]]] = {side: {"wall_s": [], "cpu_s": []} for side in sides}

    def measured(side: str) -> float:
        few, many = (_run(side, model, count) for count in (_FEW, _MANY))
        for quantity, samples in found[side].items():
            samples.append(1000 * (many[quantity] - few[quantity]) / (_MANY - _FEW))
        return found[side]["cpu_s"][-1]

    in_turns({side: partial(measured, side) for side in sides}, pairs)
    return found


def _run(side: str, model: Path, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.calibration.sides", side, str(model), str(count)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _worst_error(model: Path) -> float:
    """Largest relative error of an end of the percentile range, with every value of six samples kept to compare."""
    observer = OnnxObserver(model, Path(tempfile.gettempdir()))
    observer.watch(list(observer.tensors))
    binner = Binner()
    growing = {name: Accumulator() for name in observer.tensors}
    kept: dict[str, list[np.ndarray]] = {name: [] for name in observer.tensors}

    def take(name: str, values: np.ndarray) -> None:
        growing[name].add(binner.count(values))
        kept[name].append(values.reshape(-1).copy())

    for image in images(6):
        observer.observe({"input_layer": image}, take)
    worst = 0.0
    for name, accumulator in growing.items():
        values = np.sort(np.concatenate(kept.pop(name)))
        high_rank = math.ceil((1 - (1 - _PERCENTILE / 100) / 2) * values.size)
        exact = values[values.size - high_rank], values[high_rank - 1]
        for ours, true in zip(percentile_range(accumulator.sketch(), _PERCENTILE), exact, strict=True):
            worst = max(worst, abs(ours - true) / abs(true) if true else abs(ours))
    return worst


def _agreement() -> Row:
    name = "int8 agrees with float, EfficientNet-Lite0 on 240 closer looks at 12 photos, against the best peer"
    from benchmarks.calibration.answers import agreements

    by_photo: dict[str, list[np.ndarray]] = {}
    try:
        for seed in range(_CHOICES):
            with contextlib.redirect_stdout(sys.stderr):  # both quantizers print what they do
                for who, shares in agreements(seed):
                    by_photo.setdefault(who, []).append(shares)
    except (RuntimeError, OSError) as error:
        return absent(name, "", str(error))
    for who, choices in by_photo.items():
        shown = ", ".join(f"{choice.mean():.3f}" for choice in choices)
        print(f"  {who}: {np.mean(choices):.3f} ({shown})", file=sys.stderr)
    scores = {who: np.mean(choices, axis=0) for who, choices in by_photo.items()}  # of each photo
    best = {
        kind: max((who for who in scores if who.startswith("ours") == kind), key=lambda who: float(scores[who].mean()))
        for kind in (True, False)
    }
    gained = paired_drop(scores[best[True]], scores[best[False]], "higher")
    low, high = gained.ci95
    print(
        f"  {best[True]} − {best[False]}: {gained.mean:+.3f}, 95 % interval {low:+.3f} … {high:+.3f}, paired over "
        f"{gained.n} photos",
        file=sys.stderr,
    )
    ours, peer = (float(scores[best[kind]].mean()) for kind in (True, False))
    return Row(name=name, value=ours, unit="", peer=peer, bar=peer, ok=ours > peer)


# Of 16 calibration photos: one choice decides by a single photo.
_CHOICES = 3


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=3)
