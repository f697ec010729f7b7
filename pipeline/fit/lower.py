"""The worker's side of lowering: a file that the older runtime loads, and proof that it answers the same.

The older runtime itself is not here to be asked. What is run is the rewritten file, beside the original, on this host.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.errors import ConversionFailed
from pipeline.fit.limits import Key, knowledge
from pipeline.fit.records import Rewritten
from pipeline.quality.outputs import write_npz
from pipeline.runtimes.runtime import Array, HostModel, open_model

# Two steps of 8 bits: what the rounding of a dynamically quantized activation may move an answer by.
_TOLERATED_SHARE = 2 / 255
_DRAWN = 4  # samples drawn at random beside the given ones
_SEED = 7


def lower(
    *,
    format: Literal["tflite", "onnx"],
    model: Path,
    at: Key,
    output: Path,
    golden: Path | None = None,
    golden_output: Path | None = None,
    report: object = None,
) -> Rewritten:
    """Write to `output` the model for the runtime at `at` (`limits.place`).

    Args:
        golden: inputs of one real sample, an `.npz` in the model's own data types; drawn ones are used besides.
        golden_output: where to write the lowered model's answers to it.

    Raises:
        ConversionFailed: it cannot be lowered, or would answer differently.
    """
    try:
        reference = open_model(format, model)
    except ConversionFailed as fault:
        hint = "take another recipe, or update the runtime on the device"
        raise ConversionFailed(f"not lowered, for this host cannot run it either: {fault.message}", hint=hint) from None
    feeds = [*_given(golden), *_drawn(reference)]
    faults = []
    for steps in _made(format, model, at, output):
        try:
            lowered = open_model(format, output)
            error, count = _compare(reference, lowered, feeds)
        except ConversionFailed as fault:
            faults.append(fault.message)
            continue
        if golden is not None and golden_output is not None:
            write_npz(golden_output, lowered.invoke(next(_given(golden))))
        return Rewritten(steps=tuple(steps), max_error=error, samples=count)
    raise ConversionFailed(
        f"cannot be lowered: {'; '.join(faults)}" if faults else "there is no way to lower it",
        hint="take another recipe, or update the runtime on the device",
    )


def _made(format: str, model: Path, at: Key, output: Path) -> Iterator[Sequence[str]]:
    """Each way of lowering it, written to `output` in turn; what was done."""
    if format == "tflite":
        from pipeline.fit.lower_tflite import lower_tflite

        known = knowledge("litert", at)
        steps = lower_tflite(
            model, output, lambda code, version: known.get(str(code), 0) >= version, known.get("type", 0)
        )
        if steps:
            yield steps
        return
    from pipeline import onnx_file
    from pipeline.fit.lower_onnx import ways

    known = knowledge("onnxruntime", at)
    for step, make in ways(model, known["opset"], known["ir"]):
        try:
            onnx_file.write(make(), output, model.parent)
        except Exception as error:  # the version converter raises whatever it likes: RuntimeError, ValueError, its own
            reason = str(error).strip().splitlines()[0].rpartition("failed: ")[2]
            raise ConversionFailed(f"ONNX's version converter has no way: {reason}") from None
        yield [step]


def _given(golden: Path | None) -> Iterator[Mapping[str, Array]]:
    if golden is not None:
        with np.load(golden) as arrays:
            yield dict(arrays)


def _drawn(model: HostModel) -> list[dict[str, Array]]:
    """Random inputs: floats of a normal distribution, integers of few values, since they may be places in a table."""
    drawing = np.random.default_rng(_SEED)
    drawn = []
    for _ in range(_DRAWN):
        feed: dict[str, Array] = {}
        for spec in model.inputs:
            shape = tuple(max(size, 1) for size in spec.shape)
            kind = np.dtype(spec.dtype)
            if kind.kind == "f":
                feed[spec.name] = drawing.standard_normal(shape).astype(kind)
            elif spec.scale:
                limits = np.iinfo(kind)
                feed[spec.name] = drawing.integers(limits.min, limits.max, shape, kind, endpoint=True)
            else:
                feed[spec.name] = drawing.integers(0, 2, shape).astype(kind)
        drawn.append(feed)
    return drawn


def _compare(reference: HostModel, lowered: HostModel, feeds: Sequence[Mapping[str, Array]]) -> tuple[float, int]:
    """The largest error, and over how many samples.

    Raises:
        ConversionFailed: inputs or outputs are others, the answers are too far apart, or no sample could be run.
    """
    if [s.name for s in reference.inputs] != [s.name for s in lowered.inputs] or [
        (s.name, s.dtype) for s in reference.outputs
    ] != [(s.name, s.dtype) for s in lowered.outputs]:
        raise ConversionFailed("the lowered model has other inputs or outputs")
    worst, count = 0.0, 0
    for feed in feeds:
        try:
            expected = reference.invoke(feed)
        except Exception:  # a drawn input may be none that the model takes
            continue
        worst = max([worst, *_errors(expected, lowered.invoke(feed))])
        count += 1
    if not count:
        raise ConversionFailed("no sample could be run, so nobody knows whether it answers the same")
    if not worst <= _TOLERATED_SHARE:
        raise ConversionFailed(f"the lowered model answers differently: by {worst:.1%} of the output's range")
    return worst, count


def _errors(expected: Mapping[str, Array], answered: Mapping[str, Array]) -> Iterator[float]:
    for name, array in expected.items():
        if array.dtype.kind not in "fiub":
            continue
        wanted, found = np.asarray(array, np.float64), np.asarray(answered[name], np.float64)
        if wanted.shape != found.shape or not np.array_equal(np.isfinite(wanted), np.isfinite(found)):
            yield float("inf")
            continue
        whole = np.isfinite(wanted)
        if not whole.any():
            continue
        distance = float(np.abs(wanted - found)[whole].max())
        span = float(np.ptp(wanted[whole]))
        yield distance / span if span else (0.0 if distance == 0 else float("inf"))
