"""The worker's side of `export`: load the source, check the data, fix shapes, convert, compare."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConversionFailed, InputError
from pipeline.exporters.source import Arrays, Unstated, bound_shapes, missing_tensorflow, open_source
from pipeline.exporters.stateful import StatefulSource
from pipeline.model_files import copy_model
from pipeline.plugins import load_plugin
from pipeline.quality.outputs import OutputsReader, OutputsWriter
from pipeline.records import Format
from pipeline.runtimes.runtime import open_model
from pipeline.runtimes.state import State, state_of, write_state
from pipeline.samples import DataSpec, check_disjoint, first_arrays, open_samples
from targets.records import TensorSpec

Report = Callable[[int, int], None]
_MIN_HOP_SQNR_DB = 40.0  # a correct float32 conversion gives 100 dB and more; folding in float16 or TF32 about 60
_CAP_DB = 200.0


def prepare(
    *,
    kind: str,
    model: Path,
    signature: str,
    factory: str = "",
    shapes: Mapping[str, tuple[int, ...]],
    calibrate: DataSpec,
    test: DataSpec,
    base: Path,
    scratch: Path,
    report: Report,
    state: State | None = None,
) -> dict[str, Any]:
    """Load and bind the source, check every sample of both sets, and keep the source's own answers.

    Returns fields of `Prepared`; the files are `scratch`/model and `scratch`/reference.

    Raises:
        InputError: the model or a sample is no good.
    """
    unstated = Unstated(
        base=base, factory=factory, shapes=shapes, first_sample=lambda names: first_arrays(calibrate, names, base)
    )
    source = open_source(kind, model, signature=signature, scratch=scratch, unstated=unstated)
    if state:
        source = stateful = StatefulSource(source, state, model)
        first = stateful.first_step(next(iter(open_samples(calibrate, source.inputs, base))).inputs)
        source.fix_shapes(bound_shapes(str(model), stateful.step_inputs, shapes, first))
    else:
        first = dict(next(iter(open_samples(calibrate, source.inputs, base))).inputs)
        source.fix_shapes(bound_shapes(str(model), source.inputs, shapes, first))
    calibration_set = open_samples(calibrate, source.inputs, base)
    test_set = open_samples(test, source.inputs, base)
    calibration, tested = calibration_set.summary(), test_set.summary()
    check_disjoint(calibration_set.digests(), test_set.digests())
    with OutputsWriter(scratch / "reference") as reference:
        reference.add(
            "calibrate", 0, _finite(calibration.sample_ids[0], source.run(next(iter(calibration_set)).inputs))
        )
        for number, sample in enumerate(test_set):
            reference.add("test", number, _finite(sample.id, source.run(sample.inputs)))
            report(number + 1, len(test_set))
    source.save(scratch / "model")
    return {
        "inputs": source.inputs,
        "outputs": source.outputs,
        "calibration": calibration,
        "test": tested,
        "tools": dict(source.tools),
        "notes": tuple(getattr(source, "notes", ())),
    }


def as_is(
    *, source: Path, format: Format, named: bool, scratch: Path, report: Report, state: State | None = None
) -> dict[str, Any]:
    """The source itself, which is a file of this format, at `scratch`/model; `named`: with a name for each tensor."""
    copy_model(format, source, scratch / "model")
    notes: tuple[str, ...] = ()
    if named:
        from pipeline.exporters.tflite import name_tensors

        renamed = name_tensors(scratch / "model")
        notes = (f"{renamed} tensors renamed: others had the same name",) if renamed else ()
    write_state(format, scratch / "model", state or {})
    return {"notes": notes}


def to_tflite(*, source: Path, scratch: Path, report: Report, state: State | None = None) -> dict[str, Any]:
    """SavedModel archive → float `.tflite` at `scratch`/model."""
    from pipeline.exporters.saved_model import unpack_archive
    from pipeline.exporters.to_tflite import convert

    (scratch / "model").write_bytes(convert(unpack_archive(source, scratch)))
    write_state("tflite", scratch / "model", state or {})
    return {"notes": ()}


def to_onnx(
    *, source: Path, opset: int, archived: bool, scratch: Path, report: Report, state: State | None = None
) -> dict[str, Any]:
    """SavedModel archive (or the ONNX source itself) → float `.onnx`, as its converter gives it."""
    from pipeline import onnx_file

    if archived:
        from pipeline.exporters.saved_model import unpack_archive

        try:
            from pipeline.exporters.to_onnx import convert
        except ModuleNotFoundError as error:
            raise missing_tensorflow(str(error.name), "exporting to ONNX") from None
        model = convert(unpack_archive(source, scratch), opset=opset)
    else:
        model = onnx_file.read_graph(source)
    onnx_file.write(model, scratch / "model", source.parent)
    write_state("onnx", scratch / "model", state or {})
    return {"notes": ()}


def make_quantizable(
    *, calibrate: DataSpec, inputs: tuple[TensorSpec, ...], base: Path, scratch: Path, report: Report
) -> tuple[str, ...]:
    """Prepare the `.onnx` at `scratch`/model for onnxruntime's quantizers; returns notes."""
    from pipeline.exporters.onnx_preparation import prepared

    model, state = scratch / "model", state_of("onnx", scratch / "model")
    stateful = open_model("onnx", model) if state else None
    copy_model("onnx", model, scratch / "raw")
    samples = (
        step
        for sample in open_samples(calibrate, inputs, base)
        for step in (stateful.steps(sample.inputs) if stateful else (sample.inputs,))
    )
    notes = prepared(scratch / "raw", scratch / "ready", samples)
    write_state("onnx", scratch / "ready", state)
    (scratch / "ready").replace(model)
    return notes


def compare_hop(
    *,
    format: Format,
    model: Path,
    reference: Path,
    calibrate: DataSpec,
    inputs: tuple[TensorSpec, ...],
    base: Path,
    report: Report,
) -> dict[str, Any]:
    """Run the float export on the first calibration sample against the source framework's own answer.

    Raises:
        ConversionFailed: the answers differ by more than rounding.
    """
    sample = next(iter(open_samples(calibrate, inputs, base)))
    expected = OutputsReader(reference).read("calibrate", 0)
    host_model = open_model(format, model)
    answered = host_model.answer(sample.inputs)
    if set(answered) != set(expected):
        raise ConversionFailed(
            f"the {format} export has outputs {sorted(answered)}, the source {sorted(expected)}",
            hint="report this: names must survive an export",
        )
    error, power, worst = 0.0, 0.0, 0.0
    for name, array in expected.items():
        difference = answered[name].astype(np.float64) - array.astype(np.float64)
        error += float(np.sum(np.square(difference)))
        power += float(np.sum(np.square(array.astype(np.float64))))
        worst = max(worst, float(np.abs(difference).max(initial=0.0)))
    sqnr_db = _CAP_DB if error == 0 else min(_CAP_DB, float(10 * np.log10(max(power, 1e-300) / error)))
    if not np.isfinite(error) or (sqnr_db < _MIN_HOP_SQNR_DB and worst > 1e-5):
        raise ConversionFailed(
            f"the {format} export answers differently from the source: {worst:.3g} at most, SQNR {sqnr_db:.1f} dB "
            f"on {sample.id}",
            hint="the converter broke this model: try the other format, or another version of the converter",
        )
    return {
        "inputs": host_model.inputs,
        "outputs": host_model.outputs,
        "max_abs_error": worst,
        "sqnr_db": sqnr_db,
    }


def _finite(sample: str, answers: dict[str, Any]) -> Arrays:
    for name, array in answers.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(
                f"{sample}: the source model itself answers NaN or infinity in output {name!r}",
                hint="mend the model or take the sample out: nothing can be compared with that",
            )
    return answers


def equalize(*, format: Format, model: Path, output: Path, report: Report) -> int:
    """Level the weights of the float model's layers and return how many pairs there were.

    Raises:
        ConversionFailed: there are none.
    """
    pairs: int = load_plugin(_EQUALIZERS[format])(model, output)
    if pairs:
        write_state(format, output, state_of(format, model))
    if not pairs:
        raise ConversionFailed(
            "no two convolutions follow each other with nothing or a ReLU between them (ReLU6 and Swish do not count)",
            hint="leave `-cle` out for this model",
        )
    return pairs


_EQUALIZERS: Mapping[Format, str] = {
    "tflite": "pipeline.recipes.litert_cle:equalized",
    "onnx": "pipeline.recipes.onnx_cle:equalized",
}
