"""All steps of one run, in order: what is put together here is the pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError, nearest
from pipeline.exporters import FORMATS
from pipeline.exporters.detect import SourceKind, detect
from pipeline.flow import Step
from pipeline.recipes import OPTIONAL, RECIPES
from pipeline.recipes.recipe import recipe
from pipeline.records import Format
from pipeline.stages.calibrate import calibrate_step
from pipeline.stages.conclude import gate_step, report_step
from pipeline.stages.context import Context
from pipeline.stages.devices import measure_step, push_step
from pipeline.stages.export import export_step, model_path, prepare_step
from pipeline.stages.package import package_step
from pipeline.stages.quantize import quantize_step
from pipeline.stages.validate import validate_step
from targets.records import TargetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of deploy.yaml this run is about; empty means all of it."""

    recipes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


def steps(context: Context, selection: Selection, out: Path) -> tuple[list[Step], Step]:
    """The steps in the order they run, and the one whose record is the `Report`.

    Raises:
        InputError: the source is no model we can read.
        UsageError: a recipe or target that is not there was asked for.
    """
    kind = detect(model_path(context))
    names = _recipes(context, kind, selection.recipes)
    targets = _targets(context, selection.targets)
    formats: list[Format] = [f for f in ("tflite", "onnx") if any(recipe(name).format == f for name in names)]
    config = context.loaded.config
    calibrate, test = config.calibration_data(), config.data.spec("test")

    prepared = prepare_step(context, kind, calibrate, test)
    exported = {format: export_step(context, format, prepared, calibrate) for format in formats}
    ranged = {recipe(name).format for name in names if recipe(name).start == "ranges"}
    calibrated = {
        format: calibrate_step(context, format, prepared, exported[format], calibrate)
        for format in formats
        if format in ranged
    }
    quantized = {
        name: quantize_step(
            context,
            name,
            prepared,
            exported[recipe(name).format],
            calibrated[recipe(name).format] if recipe(name).start == "ranges" else None,
        )
        for name in names
    }
    validated = {name: validate_step(context, name, prepared, quantized[name], test) for name in names}
    packaged = package_step(context, prepared, calibrated, quantized, validated)
    pushed = {t.name: push_step(context, t, packaged, quantized, validated) for t in targets}
    measured = {t.name: measure_step(context, t, pushed[t.name], packaged, quantized, validated) for t in targets}
    gated = gate_step(context, targets, quantized, validated, measured)
    reported = report_step(context, out, prepared, calibrated, packaged, quantized, validated, pushed, measured, gated)
    ordered = [
        prepared,
        *exported.values(),
        *calibrated.values(),
        *quantized.values(),
        *validated.values(),
        packaged,
        *pushed.values(),
        *measured.values(),
        gated,
        reported,
    ]
    return ordered, reported


def _recipes(context: Context, kind: SourceKind, asked: Sequence[str]) -> list[str]:
    declared = context.loaded.config.recipes
    suiting = [name for name in RECIPES if recipe(name).format in FORMATS[kind]]
    # Options change the model's own inputs or are for one kind of CPU: they are to be asked for.
    names = list(asked) or list(declared) or [name for name in suiting if name not in OPTIONAL]
    for name in names:
        if name not in RECIPES:
            raise UsageError(
                f"--recipe {name}: there is no such recipe{nearest(name, RECIPES)}", hint="`deploy recipes` lists them"
            )
        if name not in suiting:
            raise UsageError(
                f"{name}: a {kind} source cannot become {recipe(name).format}",
                hint=f"recipes for it: {', '.join(suiting)}",
            )
    return list(dict.fromkeys(names))


def _targets(context: Context, asked: Sequence[str]) -> list[TargetSpec]:
    known = {spec.name: spec for spec in context.loaded.target_specs()}
    for name in asked:
        if name not in known:
            raise UsageError(
                f"--target {name}: not in deploy.yaml{nearest(name, known)}", hint=f"it has: {', '.join(known)}"
            )
    return [known[name] for name in dict.fromkeys(asked or known)]
