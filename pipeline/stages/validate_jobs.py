"""The worker's side of `validate`: run a candidate over the test set and compare, one sample at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import ConversionFailed, InputError
from pipeline.quality import Fidelity, MetricSpec, compare, open_metrics
from pipeline.quality.outputs import Array, OutputsReader, write_npz
from pipeline.records import Format
from pipeline.runtimes.runtime import open_model
from pipeline.samples import DataSpec, open_samples
from targets.records import TensorSpec

Report = Callable[[int, int], None]
_PICTURES = 3
_ERROR_GAIN = 10.0
_TOLERATED_OVERSHOOT = 0.25  # image networks leave 0..1 a little; more than that is no picture


def validate(
    *,
    format: Format,
    model: Path,
    reference: Path,
    test: DataSpec,
    inputs: tuple[TensorSpec, ...],
    metrics: Sequence[MetricSpec],
    base: Path,
    scratch: Path,
    report: Report,
) -> dict[str, Any]:
    """Measure fidelity to the source's answers and the task metrics of both.

    Writes golden vectors to `scratch`/golden_inputs and `scratch`/golden_outputs, pictures as PNG files beside them.
    """
    candidate = open_model(format, model)
    answers = OutputsReader(reference)
    fidelity = Fidelity({spec.name: spec.scale for spec in candidate.outputs})
    ours, theirs = open_metrics(metrics, base), open_metrics(metrics, base)
    pictures: list[dict[str, str]] = []
    samples = open_samples(test, inputs, base)
    for number, sample in enumerate(samples):
        expected, answered = answers.read("test", number), candidate.answer(sample.inputs)
        fidelity.update(answered, expected)
        if metrics:
            theirs.update(sample.id, expected, sample.truth)  # first: a metric that fails here is the user's to mend
            with _of_candidate():
                ours.update(sample.id, answered, sample.truth)
        if number == 0:
            golden = candidate.encode(sample.inputs)
            write_npz(scratch / "golden_inputs", golden)
            write_npz(scratch / "golden_outputs", candidate.invoke(golden))
        if number < _PICTURES:
            shown = _picture(sample.inputs, expected, answered, sample.truth)
            if shown:
                pictures.append(_saved(scratch, sample.id, number, shown))
        report(number + 1, len(samples))
    scores = {}
    if metrics:
        expected_scores = theirs.result()
        with _of_candidate():
            scores = compare(ours.result(), expected_scores)
    return {
        "fidelity": fidelity.result(),
        "metrics": scores,
        "samples": len(samples),
        "pictures": pictures,
        "error_gain": _ERROR_GAIN,
    }


@contextmanager
def _of_candidate() -> Iterator[None]:
    """A metric that takes the source's answers but not the candidate's says something about the candidate."""
    try:
        yield
    except InputError as error:
        raise ConversionFailed(f"its answers cannot be scored: {error.message}", hint=error.hint) from error


def _picture(
    inputs: Mapping[str, Array], expected: Mapping[str, Array], answered: Mapping[str, Array], truth: Array | None
) -> dict[str, Array] | None:
    """The images of one sample as [H, W, 3] in 0..1, or None when the model is not one of images to images."""
    if len(inputs) != 1 or len(expected) != 1:
        return None
    [given], [reference], [candidate] = inputs.values(), expected.values(), answered.values()
    if not given.ndim or not reference.ndim:
        return None
    full = 255.0 if reference.max(initial=0) > 2 else 1.0
    found = {name: _rgb(array[0], full) for name, array in (("reference", reference), ("candidate", candidate))}
    found["input"] = _rgb(given[0], 255.0 if given.max(initial=0) > 2 else 1.0)
    if any(image is None for image in found.values()):
        return None
    images = {name: image for name, image in found.items() if image is not None}
    images["error_map"] = np.clip(np.abs(images["candidate"] - images["reference"]) * _ERROR_GAIN, 0, 1)
    if truth is not None:
        right = _rgb(np.asarray(truth), 255.0 if np.max(truth, initial=0) > 2 else 1.0)
        if right is not None:
            images["truth"] = right
    return images


def _rgb(array: Array, full: float) -> Array | None:
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or min(array.shape[:2]) < 8:
        return None
    scaled = np.nan_to_num(array.astype(np.float32) / full)
    overshoot = max(-float(scaled.min()), float(scaled.max()) - 1)
    if overshoot > _TOLERATED_OVERSHOOT:
        return None
    shown: Array = np.clip(np.broadcast_to(scaled, (*scaled.shape[:2], 3)), 0, 1)
    return shown


def _saved(scratch: Path, sample: str, number: int, images: Mapping[str, Array]) -> dict[str, str]:
    names = {"sample": sample}
    for name, image in images.items():
        file = f"picture-{number}-{name}.png"
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(scratch / file)
        names[name] = file
    return names
