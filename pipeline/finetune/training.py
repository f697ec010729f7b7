"""The training loop: seeded, with a checkpoint per epoch from which it goes on as if nothing had happened."""

import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.finetune.settings import Settings
from pipeline.quality.outputs import write_npz

Array = np.ndarray[Any, Any]
Report = Callable[[int, int], None]
_LEAST_BATCHES = 8  # in an epoch, by smaller batches: a dozen samples in one step an epoch teach nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """Some samples: arrays by input, the float model's answers, and the truths; all with samples first."""

    inputs: list[Array]
    teacher: list[Array]
    truths: Array | None


class Network(Protocol):
    """A fake-quantized model of some framework, its optimizer, and the loss that it is to make small."""

    def watch(self, inputs: list[Array]) -> list[Array]:
        """What distillation compares, as the float model has it; observed ranges grow by what is seen on the way."""

    def begin(self, *, clipped: bool, calibrated: bool) -> None:
        """Begin with the clips of least rounding error or none, and with calibrated or observed ranges."""

    def loss(self, lesson: Lesson, spreads: Sequence[float]) -> float:
        """The mean loss, quantized; `spreads` are the variances of the teacher's answers, over all samples."""

    def learn(self, parts: Sequence[Lesson], spreads: Sequence[float], rate: float) -> None:
        """One step of the optimizer by the mean loss over the parts of a batch."""

    def state(self) -> list[Array]:
        """Copies of all that training changes, the optimizer's own included."""

    def restore(self, state: Sequence[Array]) -> None:
        """Take a state back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What is learned from: one array per model input, and truths; samples along the first axis.

    `part` of them are computed at once (see `pipeline.finetune.memory`). `beginnings`: which ranges to try.
    """

    inputs: Sequence[Array]
    truths: Array | None
    part: int
    batch: int | None = None  # a model may fix it
    beginnings: tuple[bool, ...] = (False,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`losses` are those of the held-out samples: before training, and after each epoch. The best one was kept."""

    losses: tuple[float, ...]
    trained: int
    held_out: int

    @property
    def best(self) -> int:
        """The epoch that was kept; 0 when training made nothing better."""
        return int(np.argmin(self.losses))


@dataclass(slots=True)
class _State:
    losses: list[float]
    best: list[Array]


def train(
    network: Network, samples: Samples, settings: Settings, scratch: Path, checkpoint: Path, report: Report
) -> Outcome:
    """Move weights and ranges so that the quantized answers come closer to the float model's own, and to the truth.

    The float model is what `network` computes before this starts (knowledge distillation, Hinton et al. 2015,
    arXiv:1503.02531). Weights and ranges are afterwards those of the epoch with the least loss on held-out samples.

    Args:
        scratch: folder for the float model's answers, which may be larger than memory.
        checkpoint: file written after every epoch; when it is there, training goes on from it.
    """
    loop = _Loop(network, samples, settings, scratch)
    state = loop.restored(checkpoint) or loop.begun()
    total = settings.epochs * loop.batches
    while len(state.losses) <= settings.epochs:
        epoch, best = len(state.losses), int(np.argmin(state.losses))
        if epoch - 1 - best >= settings.patience:
            break
        loop.run_epoch(epoch, partial(_after, report, (epoch - 1) * loop.batches, total))
        loop.judge(state)
        loop.save(state, checkpoint)
    report(total, total)
    network.restore(state.best)
    return Outcome(losses=tuple(state.losses), trained=len(loop.trained), held_out=len(loop.held_out))


def _after(report: Report, before: int, total: int, done: int) -> None:
    report(before + done, total)


def batch_size(count: int, settings: Settings) -> int:
    """Of `count` samples to train on, how many make a step."""
    return min(settings.batch_size, -(-count // _LEAST_BATCHES))


class _Loop:
    def __init__(self, network: Network, samples: Samples, settings: Settings, scratch: Path) -> None:
        self._network, self._samples, self._settings = network, samples, settings
        count = len(samples.inputs[0])
        order = np.random.default_rng(settings.seed).permutation(count)
        kept = min(max(1, round(settings.held_out * count)), count - 1)  # one to train on, one to judge by
        self.held_out, self.trained = np.sort(order[:kept]), np.sort(order[kept:])
        self._batch = samples.batch or batch_size(len(self.trained), settings)
        self.batches = math.ceil(len(self.trained) / self._batch)
        self._teacher = self._watched(count, scratch)
        self._spreads = [max(float(np.var(answers)), 1e-12) for answers in self._teacher]

    def _watched(self, count: int, scratch: Path) -> list[Array]:
        """The float model's answers on all samples, in files that are mapped into memory."""
        found: list[Array] = []
        for part in _cut(np.arange(count), self._samples.part):
            answers = self._network.watch([array[part] for array in self._samples.inputs])
            if not found:
                found = [
                    np.lib.format.open_memmap(
                        scratch / f"teacher_{number}.npy", "w+", answer.dtype, (count, *answer.shape[1:])
                    )
                    for number, answer in enumerate(answers)
                ]
            for whole, answer in zip(found, answers, strict=True):
                whole[part] = answer
        return found

    def begun(self) -> _State:
        """The state before training, with that beginning that is better on the held-out samples."""
        tried: list[_State] = []
        for calibrated, clipped in product(self._samples.beginnings, (False, True)):
            self._network.begin(clipped=clipped, calibrated=calibrated)
            tried.append(_State([], []))
            self.judge(tried[-1])
        state = min(tried, key=lambda one: one.losses[0])
        self._network.restore(state.best)
        return state

    def run_epoch(self, epoch: int, report: Callable[[int], None]) -> None:
        """One pass over the training samples in an order of its own; the rate falls to zero along a cosine."""
        settings = self._settings
        rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / settings.epochs))
        order = np.random.default_rng([settings.seed, epoch]).permutation(self.trained)
        for number, batch in enumerate(_cut(order, self._batch)):
            parts = [self._lesson(part) for part in _cut(batch, self._samples.part)]
            self._network.learn(parts, self._spreads, rate)
            report(number + 1)

    def judge(self, state: _State) -> None:
        """Add the loss on the held-out samples to the state, and keep the variables when it is the least yet."""
        loss = 0.0
        for part in _cut(self.held_out, min(self._batch, self._samples.part)):
            loss += self._network.loss(self._lesson(part), self._spreads) * len(part) / len(self.held_out)
        if not state.losses or loss < min(state.losses):
            state.best = self._network.state()
        # A loss that is no number is a diverged epoch: never the best one.
        state.losses.append(loss if math.isfinite(loss) else math.inf)

    def save(self, state: _State, path: Path) -> None:
        """Write the checkpoint under another name and rename it: a kill leaves the one before."""
        arrays = {f"now/{n}": values for n, values in enumerate(self._network.state())}
        arrays |= {f"best/{n}": values for n, values in enumerate(state.best)}
        write_npz(path.with_suffix(".part"), {**arrays, "losses": np.array(state.losses)})
        path.with_suffix(".part").replace(path)

    def restored(self, path: Path) -> _State | None:
        """The state of the checkpoint, its variables in place; None when there is none that can be read."""
        here = self._network.state()
        try:
            with np.load(path, allow_pickle=False) as found:
                now = [found[f"now/{n}"] for n in range(len(here))]
                state = _State(found["losses"].tolist(), [found[f"best/{n}"] for n in range(len(here))])
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            return None
        self._network.restore(now)
        return state

    def _lesson(self, part: Array) -> Lesson:
        truths = self._samples.truths
        return Lesson(
            inputs=[array[part] for array in self._samples.inputs],
            teacher=[array[part] for array in self._teacher],
            truths=None if truths is None else truths[part],
        )


def _cut(indices: Array, size: int) -> Iterator[Array]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]
