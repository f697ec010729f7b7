"""The whole pipeline on a device: what it is told to run, and what the times of the parts advise."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError, UsageError
from pipeline.measuring.subjects import Subject
from pipeline.runtimes.runtime import quantized
from pipeline.samples import DataSpec, open_samples
from pipeline.samples.batching import without_batch
from pipeline.samples.preprocess import MeanStd, Scale, Step, apply_steps
from pipeline.store import Store
from pipeline.worker import Worker
from targets.parts import Way, WholeWay
from targets.records import TensorSpec

_NEEDS_PILLOW = "resize"
_NORMALISING = ("scale", "mean_std")
_WORTH = 0.1  # share of the whole time from which on a part is worth a sentence
_SAME_LEVELS = 1  # 0…255 onto −1…1 has its zero point at 127.5, which is rounded
_EQUAL_STEPS = 0.01  # of 255 per range: float rounding is thousands of times less, another pixel value is a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A way, its files by digest, and whether the model's own input type can take the place of the normalising."""

    way: Way
    paths: Mapping[str, Path]
    folded: Way | None  # the same without normalising: the model takes the bytes as they are
    inside: bool  # whether the model takes the bytes as they are already
    takes: str  # data type of the model's input
    quantized: bool  # whether its recipe is one of int8


def tensors(
    *, format: str, model: Path, report: object = None
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], frozenset[str]]:
    """Inputs and outputs of a model, and which inputs take an image's bytes. Run in the worker's child."""
    from pipeline.runtimes.runtime import open_model

    opened = open_model(format, model)
    return opened.inputs, opened.outputs, frozenset(opened.pixels)


def prepared(subject: Subject, test: DataSpec, base: Path, store: Store) -> Prepared:
    """What to push and to run for the first sample of the test set.

    Raises UsageError for a model with several inputs, and InputError for a sample that cannot be read.
    """
    with Worker() as worker:
        inputs, outputs, pixels = worker.call(
            "pipeline.measuring.whole:tensors", format=subject.format, model=subject.paths[subject.blob]
        )
    if len(inputs) != 1:
        raise UsageError(
            f"{subject.name}: the whole pipeline is timed for models with one input, this has {len(inputs)}",
            hint="leave --pipeline out",
        )
    (tensor,) = inputs
    raw, file = open_samples(test, inputs, base).first_raw()
    if tensor.name not in raw.inputs:
        raise InputError(f"{raw.id}: the input {tensor.name!r} is missing", hint="name the array as the model's input")
    array, batch = without_batch(raw.id, tensor, raw.inputs[tensor.name])
    steps = [
        step for step in test.steps(tensor.name) if not (tensor.name in pixels and isinstance(step, Scale | MeanStd))
    ]
    given = {"decode": array, **_pillows(steps, array)}
    kind = "image" if file else ("array" if test.path.endswith((".npz", ".npy")) else "")
    with store.workspace() as folder:
        if file:
            shutil.copyfile(file, folder / "raw")
        else:
            with (folder / "raw").open("wb") as stream:
                np.save(stream, array)
        with (folder / "given").open("wb") as stream:
            np.savez_compressed(stream, **given)
        digests = {name: store.add_file(folder / name) for name in ("raw", "given")}
    way = Way(
        **digests,
        kind=kind,
        steps=tuple(step.describe() for step in steps),
        tensor={**_affine(tensor), "dtype": tensor.dtype, "batch": batch},
        outputs=tuple(_affine(output) for output in outputs),
    )
    return Prepared(
        way=way,
        paths={digest: store.path(digest) for digest in digests.values()},
        folded=folded_way(way, steps, array, tensor),
        inside=tensor.name in pixels,
        takes=tensor.dtype,
        quantized="int8" in subject.name,
    )


def advice(found: WholeWay, prepared: Prepared, folded: WholeWay | None, tflite: bool) -> list[str]:
    """What would make the way shorter, in sentences."""
    total = found.known_us
    if not total:
        return []
    shares = {part.name: part.us / total for part in found.parts if isinstance(part.us, float)}
    said = ["normalising is inside the model, which takes the image's bytes"] if prepared.inside else []
    norm = sum(shares.get(name, 0.0) for name in (*_NORMALISING, "model input"))
    if folded is not None and any(name in shares for name in _NORMALISING):
        checked = isinstance(folded.input_steps, float) and folded.input_steps <= _SAME_LEVELS
        said.append(
            f"its uint8 input takes the pixels as they are{', as tried there' * checked}: leave out normalising and "
            f"quantizing, {norm:.1%} of the time"
        )
    elif norm >= _WORTH and any(name in shares for name in _NORMALISING):
        said.append(f"normalisation is {norm:.0%} of the time: " + _instead(prepared, tflite))
    if (share := shares.get("decode", 0.0)) >= _WORTH and prepared.way.kind == "image":
        said.append(f"decoding is {share:.0%} of the time: take frames from the camera, not files")
    if (share := shares.get("resize", 0.0)) >= _WORTH:
        said.append(f"resizing is {share:.0%} of the time: have the camera give a smaller picture, or crop first")
    return said


def alike(found: WholeWay) -> str:
    """Whether the device prepares a sample as the host does."""
    if not isinstance(found.input_steps, float):
        return f"the prepared sample is not the host's: {found.input_steps.reason}"
    if found.input_steps <= _EQUAL_STEPS:
        return "the device prepares the sample as the host does"
    return f"the device prepares the sample otherwise: up to {found.input_steps:.3g} steps of 8 bits from the host's"


def _instead(prepared: Prepared, tflite: bool) -> str:
    family = "litert" if tflite else "onnx"
    if prepared.takes == "uint8":
        return f"its uint8 input has another scale than the pixels: the recipe {family}-int8-pixels has theirs"
    precision = "int8" if prepared.quantized else "float32"
    return f"accept uint8 input and fold it into the first layer, as the recipe {family}-{precision}-pixels does"


def _pillows(steps: Sequence[Step], array: Any) -> dict[str, Any]:
    """The host's arrays after the steps that a device without Pillow cannot do."""
    made = {}
    for number, step in enumerate(steps):
        array = apply_steps([step], array)
        if step.step == _NEEDS_PILLOW:
            made[f"step{number}"] = array
    return made


def folded_way(way: Way, steps: Sequence[Step], array: Any, tensor: TensorSpec) -> Way | None:
    """The way without normalising, when for each of the 256 pixel values it and the quantizing cancel out."""
    normalising = [step for step in steps if isinstance(step, Scale | MeanStd)]
    if tensor.dtype != "uint8" or not tensor.scale or not normalising:
        return None
    begin = steps.index(normalising[0])
    before = apply_steps(steps[:begin], array)
    if before.dtype != np.uint8 or any(step.step not in (*_NORMALISING, "layout") for step in steps[begin:]):
        return None  # what comes after would compute with other numbers
    pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], before.shape[-1], axis=1)
    levels = quantized(apply_steps(normalising, pixels), tensor).astype(int) - pixels
    if np.abs(levels).max() > _SAME_LEVELS:
        return None
    kept = tuple(step.describe() for step in steps if step not in normalising)
    return replace(way, steps=kept)


def _affine(tensor: TensorSpec) -> dict[str, Any]:
    return {"scale": tensor.scale, "zero_point": tensor.zero_point}
