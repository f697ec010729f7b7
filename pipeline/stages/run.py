"""All steps of one run, in order: what is put together here is the pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError, nearest
from pipeline.exporters import FORMATS
from pipeline.exporters.detect import SourceKind, detect
from pipeline.flow import Step
from pipeline.recipes import OPTIONAL, RECIPES
from pipeline.recipes.recipe import WEIGHT_BITS, recipe
from pipeline.records import Format
from pipeline.samples import DataSpec
from pipeline.stages.calibrate import calibrate_step
from pipeline.stages.conclude import gate_step, report_step
from pipeline.stages.context import Context
from pipeline.stages.devices import measure_step, push_step
from pipeline.stages.export import export_step, model_path, prepare_step
from pipeline.stages.finetune import finetune_step
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
    data = context.loaded.config.data
    calibrate, test = data.spec("calibrate"), data.spec("test")

    prepared = prepare_step(context, kind, calibrate, test)
    branches = _branches(context, names, prepared, calibrate)
    quantized = {name: branches[_weight_bits(name)].quantize_step(context, name) for name in names}
    validated = {name: validate_step(context, name, prepared, quantized[name], test) for name in names}
    packaged = package_step(context, prepared, quantized, validated)
    pushed = {t.name: push_step(context, t, packaged, quantized, validated) for t in targets}
    measured = {t.name: measure_step(context, t, pushed[t.name], packaged, quantized, validated) for t in targets}
    gated = gate_step(context, targets, quantized, validated, measured)
    reported = report_step(context, out, prepared, packaged, quantized, validated, pushed, measured, gated)
    before = dict.fromkeys([prepared, *(step for branch in branches.values() for step in branch.steps())])
    ordered = [
        *before,  # the source of the first branch is `prepared` itself
        *quantized.values(),
        *validated.values(),
        packaged,
        *pushed.values(),
        *measured.values(),
        gated,
        reported,
    ]
    return ordered, reported


@dataclass(frozen=True, slots=True, kw_only=True)
class _Branch:
    """A source, as given or fine-tuned, and its float model and ranges in each format that recipes start from."""

    source: Step
    exported: Mapping[Format, Step]
    calibrated: Mapping[Format, Step]

    def steps(self) -> list[Step]:
        return [self.source, *self.exported.values(), *self.calibrated.values()]

    def quantize_step(self, context: Context, name: str) -> Step:
        format = recipe(name).format
        ranges = self.calibrated[format] if _needs_ranges(name) else None
        return quantize_step(context, name, self.source, self.exported[format], ranges)


def _branches(context: Context, names: Sequence[str], prepared: Step, calibrate: DataSpec) -> dict[int, _Branch]:
    """One branch for each width of weights that recipes want the source trained for; 0: as it was given."""
    branches = {}
    for bits in sorted({_weight_bits(name) for name in names}):
        model = model_path(context)
        source = finetune_step(context, model, prepared, calibrate, weight_bits=bits) if bits else prepared
        label = f"{source.name}-" if bits else ""
        own = [name for name in names if _weight_bits(name) == bits]
        formats: list[Format] = [f for f in ("tflite", "onnx") if any(recipe(name).format == f for name in own)]
        exported = {f: export_step(context, f, source, calibrate, name=f"{label}{f}") for f in formats}
        ranged = {recipe(name).format for name in own if _needs_ranges(name)}
        branches[bits] = _Branch(
            source=source,
            exported=exported,
            calibrated={
                f: calibrate_step(context, f, source, exported[f], calibrate, name=f"{label}{f}")
                for f in formats
                if f in ranged
            },
        )
    return branches


def _weight_bits(name: str) -> int:
    return WEIGHT_BITS.get(recipe(name).start, 0)


def _needs_ranges(name: str) -> bool:
    return recipe(name).start == "ranges" or bool(_weight_bits(name))


def _recipes(context: Context, kind: SourceKind, asked: Sequence[str]) -> list[str]:
    declared = context.loaded.config.recipes
    suiting = [name for name in RECIPES if _suits(kind, name)]
    # Options change the model's own inputs or are for one kind of CPU: they are to be asked for.
    names = list(asked) or list(declared) or [name for name in suiting if name not in OPTIONAL]
    for name in names:
        if name not in RECIPES:
            raise UsageError(
                f"--recipe {name}: there is no such recipe{nearest(name, RECIPES)}", hint="`deploy recipes` lists them"
            )
        if name not in suiting:
            trained = _weight_bits(name) and kind != "keras"
            raise UsageError(
                f"{name}: only a Keras model can be fine-tuned, this is a {kind} source"
                if trained
                else f"{name}: a {kind} source cannot become {recipe(name).format}",
                hint=f"recipes for it: {', '.join(suiting)}",
            )
    return list(dict.fromkeys(names))


def _suits(kind: SourceKind, name: str) -> bool:
    return recipe(name).format in FORMATS[kind] and (kind == "keras" or not _weight_bits(name))


def _targets(context: Context, asked: Sequence[str]) -> list[TargetSpec]:
    known = {spec.name: spec for spec in context.loaded.target_specs()}
    for name in asked:
        if name not in known:
            raise UsageError(
                f"--target {name}: not in deploy.yaml{nearest(name, known)}", hint=f"it has: {', '.join(known)}"
            )
    return [known[name] for name in dict.fromkeys(asked or known)]
