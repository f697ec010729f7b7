"""Calibration against onnxruntime's and ai-edge-quantizer's, on MobileNetV2 and (where given) EfficientNet-Lite0.

Times are per sample: what more samples cost more, in processes of their own, in turns. EfficientNet-Lite0 and photos
are not ours to ship: BENCHMARK_EFFICIENTNET_LITE0 names a folder with them (see models.py).
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
from statistics import mean

import numpy as np

from benchmarks.calibration.models import LITE0, images, mobilenet_v2
from benchmarks.pairs import ROOT, Row, absent, at_least, at_most, in_turns, main, middle
from pipeline.calibration.accumulate import Accumulator, Binner
from pipeline.calibration.onnx import OnnxObserver
from pipeline.calibration.percentile import percentile_range

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
    lite = Path(LITE0) / "lite0.tflite" if LITE0 else tflite
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
    name = "int8 agrees with float, EfficientNet-Lite0 on photos, against the best peer"
    if not LITE0:
        return absent(name, "", "BENCHMARK_EFFICIENTNET_LITE0 names no folder with the model and photos")
    from benchmarks.calibration.answers import agreements

    scores: dict[str, list[float]] = {}
    for seed in range(5):  # choices of 16 calibration photos: one choice decides by a single photo
        with contextlib.redirect_stdout(sys.stderr):  # both quantizers print what they do
            for who, share in agreements(seed):
                scores.setdefault(who, []).append(share)
    for who, shares in scores.items():
        print(f"  {who}: {mean(shares):.3f} ({', '.join(f'{share:.3f}' for share in shares)})", file=sys.stderr)
    best = {kind: max(mean(v) for who, v in scores.items() if who.startswith("ours") == kind) for kind in (True, False)}
    return at_least(name, best[True], "", best[False], best[False])


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=3)
