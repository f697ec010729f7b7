"""The worker's side of fine-tuning: a source in, one with the same names out, and the ranges it learned."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.calibration.engine import LEVELS, show
from pipeline.calibration.learned import LearnedRange, beginnings, fingerprint, write_learned
from pipeline.calibration.observer import Take
from pipeline.calibration.observer import plan as plan_passes
from pipeline.errors import ConversionFailed
from pipeline.finetune.memory import Plan, plan
from pipeline.finetune.settings import Calibrated, Origin, Settings
from pipeline.finetune.trainee import Trainee, open_trainee
from pipeline.finetune.training import Outcome, Samples, batch_size, train
from pipeline.quality.outputs import OutputsWriter
from pipeline.recipes.recipe import Ranges
from pipeline.samples import DataSpec, open_samples
from pipeline.samples.sample_set import SampleSet
from pipeline.stages.calibrate_jobs import open_observer
from pipeline.stages.candidate_jobs import observed_ranges

Report = Callable[[int, int], None]
Array = np.ndarray[Any, Any]


def foresee(
    *, origin: Origin, data: DataSpec, weight_bits: int, settings: Settings, budget_bytes: float, report: Report
) -> Plan:
    """What training will take in memory; trains nothing.

    Raises:
        ConversionFailed: the model has nothing to train, or is of a form that we cannot train.
    """
    trainee = open_trainee(origin, weight_bits)
    count = len(open_samples(data, origin.inputs, origin.base))
    return plan(
        sample_bytes=trainee.sample_bytes,
        weight_bytes=trainee.weight_bytes,
        batch=trainee.batch or batch_size(count, settings),
        budget_bytes=int(budget_bytes),
    )


def finetune(
    *,
    origin: Origin,
    data: DataSpec,
    calibrate: DataSpec,
    weight_bits: int,
    settings: Settings,
    loss: str,
    part: int,
    checkpoint: Path,
    report: Report,
    calibrated: Calibrated | None = None,
) -> dict[str, Any]:
    """Train the model as if it were quantized, on `data`: what there is in `calibrate`, or a choice of it.

    Args:
        part: samples computed at once, of `foresee`.
        calibrated: what ranges may begin with; without it, with those observed on `data`.

    Returns fields of `Prepared`; the files are `scratch`/model, `scratch`/reference and `scratch`/learned.

    Raises:
        ConversionFailed: the model has nothing to train, or is of a form that we cannot train.
    """
    scratch, trainee = origin.scratch, open_trainee(origin, weight_bits)
    names = [spec.name for spec in origin.inputs]
    inputs, truths = _gathered(open_samples(data, origin.inputs, origin.base), names, trainee, scratch)
    # Not of `data`, which may leave it out: what follows compares and calibrates with the first of all.
    first = next(iter(open_samples(calibrate, origin.inputs, origin.base))).inputs
    ranges = _beginnings(trainee, first, calibrated, scratch) if calibrated else {}
    network = trainee.network(loss=loss, base=origin.base, truths=truths, calibrated=ranges)
    outcome = train(
        network,
        Samples(
            inputs=inputs,
            truths=truths,
            part=part,
            batch=trainee.batch,
            beginnings=_tried(ranges, calibrated),
        ),
        settings,
        scratch,
        checkpoint,
        report,
    )
    learned = trainee.settle()
    write_learned(
        scratch / "learned",
        [
            LearnedRange(name=name, low=learned[name][0], high=learned[name][1], holds=fingerprint(values))
            for name, values in trainee.seen(first).items()
        ],
    )
    with OutputsWriter(scratch / "reference") as reference:
        reference.add("calibrate", 0, trainee.save(first))
    notes = _notes(outcome, trainee, with_truth=bool(loss) or truths is not None)
    if calibrated and calibrated.merged:
        notes = (*notes, f"{len(ranges)} of {len(learned)} learned ranges began with those of calibration.merge")
    return {"notes": notes}


def _gathered(
    samples: SampleSet, names: list[str], trainee: Trainee, scratch: Path
) -> tuple[list[Array], Array | None]:
    """All samples, one array per input mapped from a file, so that they need no memory; and their truths."""
    if len(samples) < 2:
        raise ConversionFailed("fine-tuning takes two calibration samples or more", hint="a few dozen are better")
    files: list[Array] = []
    truths: list[Array] = []
    count = 0
    for number, sample in enumerate(samples):
        rows = [trainee.joined([sample.inputs[name]]) for name in names]
        if not files:
            files = [
                np.lib.format.open_memmap(scratch / f"input_{n}.npy", "w+", row.dtype, (len(samples), *row.shape[1:]))
                for n, row in enumerate(rows)
            ]
        for file, row in zip(files, rows, strict=True):
            file[number] = row[0]
        if sample.truth is not None:
            truths.append(sample.truth)
        count += 1
    assert count == len(samples), "a set yields as many samples as it says"
    if truths and len({truth.shape for truth in truths}) != 1:
        raise ConversionFailed("the truths of qat.truth have different shapes", hint="give all the same shape")
    return files, np.stack(truths) if truths else None


def _beginnings(trainee: Trainee, first: Mapping[str, Array], calibrated: Calibrated, scratch: Path) -> Ranges:
    """The calibrated range of each tensor that training has a range for, where the export has that tensor."""
    observer = open_observer(calibrated.format, calibrated.model, scratch)
    passes = plan_passes(observer, LEVELS, calibrated.budget_bytes)
    held = {name: fingerprint(values) for name, values in trainee.seen(first).items()}

    def shown(take: Take) -> None:
        show(observer, passes, first, take)

    return beginnings(held, observed_ranges(calibrated.ranges), shown)


def _tried(ranges: Ranges, calibrated: Calibrated | None) -> tuple[bool, ...]:
    """Whether to begin with observed ranges, with calibrated ones, or with those that are better."""
    if not calibrated or not ranges:
        return (False,)
    # Held-out samples cannot tell what the samples need that were merged: those ranges are not up for choice.
    return (True,) if calibrated.merged else (False, True)


def _notes(outcome: Outcome, trainee: Trainee, *, with_truth: bool) -> tuple[str, ...]:
    how = "distillation and the given truth" if with_truth else "distillation, without labels"
    before, after = outcome.losses[0], outcome.losses[outcome.best]
    kept = f"epoch {outcome.best} of {len(outcome.losses) - 1}" if outcome.best else "no epoch was better than none"
    notes = [
        f"fine-tuned by {how}: {outcome.trained} calibration samples, loss on {outcome.held_out} others "
        f"{before:.3g} → {after:.3g} ({kept})"
    ]
    if trainee.untrained:
        notes.append(f"not fine-tuned, no kernel we know: {', '.join(trainee.untrained)}")
    return tuple(notes)
