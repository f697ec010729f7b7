"""The worker's side of fine-tuning: a Keras model in, one with the same names out, and the ranges it learned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.calibration.learned import LearnedRange, fingerprint, write_learned
from pipeline.errors import ConversionFailed
from pipeline.exporters.keras import KerasSource, load
from pipeline.finetune.folding import folded
from pipeline.finetune.losses import truth_loss
from pipeline.finetune.quantized_model import QuantizedModel, quantized_model
from pipeline.finetune.settings import Settings
from pipeline.finetune.training import Outcome, train
from pipeline.quality.outputs import OutputsWriter
from pipeline.samples import DataSpec, open_samples
from pipeline.samples.sample_set import SampleSet
from targets.records import TensorSpec

Report = Callable[[int, int], None]
Arrays = list[np.ndarray[Any, Any]]


def finetune(
    *,
    model: Path,
    data: DataSpec,
    calibrate: DataSpec,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    weight_bits: int,
    settings: Settings,
    loss: str,
    base: Path,
    scratch: Path,
    checkpoint: Path,
    report: Report,
) -> dict[str, Any]:
    """Train the model as if it were quantized, on `data`: what there is in `calibrate`, or a choice of it.

    Returns fields of `Prepared`; the files are `scratch`/model, `scratch`/reference and `scratch`/learned.

    Raises:
        ConversionFailed: the model has nothing to train, or is of a form that we cannot train.
    """
    samples = open_samples(data, inputs, base)
    arrays, truths = _stacked(samples, [spec.name for spec in inputs])
    try:
        plain = folded(load(model))
        quantized = quantized_model(plain, weight_bits=weight_bits)
    except ValueError as error:  # of ours, or Keras's own on a graph that it cannot clone
        said = str(error).strip().splitlines()[0]
        raise ConversionFailed(f"this model cannot be fine-tuned: {said}", hint=_WITHOUT) from error
    _refuse_half_precision(plain)
    added = truth_loss(loss, base, [spec.name for spec in outputs], quantized.softmax, truths)
    outcome = train(quantized, arrays, truths, added, settings, checkpoint, report)
    # Not of `data`, which may leave it out: what follows compares and calibrates with the first of all.
    first = next(iter(open_samples(calibrate, inputs, base))).inputs
    write_learned(scratch / "learned", _settled(quantized, [first[spec.name] for spec in inputs]))
    source = KerasSource(model, scratch=scratch, model=plain)
    if [spec.name for spec in source.outputs] != [spec.name for spec in outputs]:
        raise ConversionFailed("fine-tuning lost the names of the outputs", hint=_WITHOUT)
    source.fix_shapes({spec.name: spec.shape for spec in inputs})
    with OutputsWriter(scratch / "reference") as reference:
        reference.add("calibrate", 0, source.run(first))
    source.save(scratch / "model")
    return {"notes": _notes(outcome, quantized, bool(added))}


_WITHOUT = "the recipes without `qat` take this model"


def _stacked(samples: SampleSet, names: list[str]) -> tuple[Arrays, np.ndarray[Any, Any] | None]:
    """All samples, one array per input, and their truths. They are held in memory: `qat.samples` limits them."""
    rows, truths = [], []
    for sample in samples:
        rows.append([sample.inputs[name] for name in names])
        truths.append(sample.truth)
    if len(rows) < 2:
        raise ConversionFailed("fine-tuning takes two calibration samples or more", hint="a few dozen are better")
    if any(array.shape[0] != 1 for array in rows[0]):
        raise ConversionFailed("fine-tuning takes models whose samples have a batch axis of 1", hint=_WITHOUT)
    known = [truth for truth in truths if truth is not None]
    if known and len({truth.shape for truth in known}) != 1:
        raise ConversionFailed("the truths of qat.truth have different shapes", hint="give all the same shape")
    return [np.concatenate(column) for column in zip(*rows, strict=True)], np.stack(known) if known else None


def _refuse_half_precision(model: Any) -> None:
    for layer in model.layers:
        if layer.compute_dtype != "float32" and layer.weights:
            raise ConversionFailed(
                f"layer {layer.name} computes in {layer.compute_dtype}: fine-tuning takes float32 models",
                hint="set its dtype policy to float32 and save it again",
            )


def _settled(quantized: QuantizedModel, sample: Arrays) -> list[LearnedRange]:
    """Put the weights on their grids for good, and say which range was learned for which tensor."""
    for layer in quantized.weights:
        for variable, values in layer.quantized():
            variable.assign(values)
    ranges = {layer.name: tuple(float(end) for end in layer.range()) for layer in quantized.activations}
    seen = quantized.seen(sample)
    return [
        LearnedRange(name=name, low=ranges[name][0], high=ranges[name][1], holds=fingerprint(values))
        for name, values in seen.items()
    ]


def _notes(outcome: Outcome, quantized: QuantizedModel, with_truth: bool) -> tuple[str, ...]:
    how = "distillation and the given truth" if with_truth else "distillation, without labels"
    before, after = outcome.losses[0], outcome.losses[outcome.best]
    kept = f"epoch {outcome.best} of {len(outcome.losses) - 1}" if outcome.best else "no epoch was better than none"
    notes = [
        f"fine-tuned by {how}: {outcome.trained} calibration samples, loss on {outcome.held_out} others "
        f"{before:.3g} → {after:.3g} ({kept})"
    ]
    if quantized.untrained:
        notes.append(f"not fine-tuned, no kernel we know: {', '.join(quantized.untrained)}")
    return tuple(notes)
