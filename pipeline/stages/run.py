"""All steps of one run, in order: what is put together here is the pipeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.exporters import FORMATS, NOT_AVAILABLE, OWN_FORMAT, QUANTIZED
from pipeline.exporters.detect import SourceKind, detect
from pipeline.exporters.quantized import marks
from pipeline.finetune.settings import TRAINEES
from pipeline.flow import Step
from pipeline.inventory.selector import select
from pipeline.inventory.sheets import kept_facts
from pipeline.recipes import AS_IS, AUTO, OPTIONAL, RECIPES, unknown
from pipeline.recipes.recipe import recipe
from pipeline.records import Format
from pipeline.stages.branches import BOTH_FORMATS, branch_steps, branches, weight_bits
from pipeline.stages.calibrate import calibrate_step
from pipeline.stages.conclude import gate_step, report_step
from pipeline.stages.confirm import confirm_step
from pipeline.stages.context import Context
from pipeline.stages.devices import measure_step, push_step
from pipeline.stages.export import export_step, model_path, prepare_step
from pipeline.stages.package import package_step
from pipeline.stages.release import Releasing, release_step
from pipeline.stages.search import search_step, sensitivity_step
from pipeline.stages.validate import validate_step
from targets.records import TargetSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What of deploy.yaml this run is about; empty means all of it."""

    recipes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


def steps(
    context: Context, selection: Selection, out: Path, releasing: Releasing | None = None
) -> tuple[list[Step], Step]:
    """The steps in the order they run, and the one whose record is the `Report`.

    Raises:
        InputError: the source is no model we can read.
        UsageError: a recipe or target that is not there was asked for.
    """
    config = context.loaded.config
    kind = detect(model_path(context), config.source.factory)
    names = _recipes(context, kind, selection.recipes)
    targets = select(context.loaded.target_specs(), selection.targets, kept_facts(context.store.root))
    calibrate, test = config.calibration_data(), config.data.spec("test")

    prepared = prepare_step(context, kind, calibrate, test)
    sources = branches(context, names, prepared, calibrate)
    # Of the source as given: what searches and trainings start from, and what the report's calibrations are of.
    exported, calibrated = sources[0].exported, sources[0].calibrated
    sensitive, searched = _searches(context, names, targets, prepared, exported, calibrated)
    quantized = {
        name: sources[weight_bits(name)].quantize_step(context, name, searched.get(name), calibrate) for name in names
    }
    validated = {name: validate_step(context, name, prepared, quantized[name], test) for name in names}
    packaged = package_step(context, prepared, calibrated, quantized, validated)
    pushed = {t.name: push_step(context, t, packaged, quantized, validated) for t in targets}
    measured = {t.name: measure_step(context, t, pushed[t.name], packaged, quantized, validated) for t in targets}
    gated = gate_step(context, targets, quantized, validated, pushed, measured)
    released = release_step(
        context,
        out,
        {target.name: target.device_class for target in targets},
        releasing or Releasing(),
        prepared,
        calibrated,
        searched,
        quantized,
        validated,
        pushed,
        measured,
        gated,
    )
    reported = report_step(
        context, out, prepared, calibrated, released, sensitive, searched, quantized, validated, pushed, measured, gated
    )
    ordered = [
        *dict.fromkeys([prepared, *branch_steps(sources)]),  # the source of the first branch is `prepared` itself
        *sensitive.values(),
        *searched.values(),
        *quantized.values(),
        *validated.values(),
        packaged,
        *pushed.values(),
        *measured.values(),
        gated,
        released,
        reported,
    ]
    return ordered, reported


def candidate_steps(context: Context, names: Sequence[str]) -> tuple[list[Step], dict[str, tuple[Step, Step]]]:
    """The steps up to validated candidates, and for each recipe the steps of its artifact and of its quality.

    Raises what `steps` raises, and UsageError for a recipe that searches: what it finds depends on a whole run.
    """
    kind = detect(model_path(context))
    names = _recipes(context, kind, names)
    for name in names:
        if recipe(name).start == "search":
            raise UsageError(f"{name}: a search is part of `deploy run`", hint="measure the release it made")
    calibrate, test = context.loaded.config.calibration_data(), context.loaded.config.data.spec("test")
    prepared = prepare_step(context, kind, calibrate, test)
    sources = branches(context, names, prepared, calibrate)
    found = {}
    for name in names:
        quantized = sources[weight_bits(name)].quantize_step(context, name, None, calibrate)
        found[name] = (quantized, validate_step(context, name, prepared, quantized, test))
    parts = [step for pair in found.values() for step in pair]
    return list(dict.fromkeys([prepared, *branch_steps(sources), *parts])), found


def sensitivity_steps(context: Context, format: str | None, confirm: int) -> list[Step]:
    """The steps up to the ranking of blocks, which is the record of the last; with `confirm`, of the last but one.

    The last one holds so many of the worst blocks against the task metrics then.

    Raises:
        InputError: the source is no model we can read.
        UsageError: it cannot become `format`.
    """
    config = context.loaded.config
    kind = detect(model_path(context), config.source.factory)
    wanted: Format = next(
        (f for f in BOTH_FORMATS if f == format), BOTH_FORMATS[0] if "tflite" in FORMATS[kind] else "onnx"
    )
    if wanted not in FORMATS[kind]:
        raise UsageError(f"--format {wanted}: a {kind} source cannot become that", hint="leave --format out")
    calibrate, test = config.calibration_data(), config.data.spec("test")
    prepared = prepare_step(context, kind, calibrate, test)
    exported = export_step(context, wanted, prepared, calibrate)
    calibrated = calibrate_step(context, wanted, prepared, exported, calibrate)
    sensitive = sensitivity_step(context, wanted, prepared, exported, calibrated, calibrate)
    steps = [prepared, exported, calibrated, sensitive]
    if confirm:
        asked = (context, wanted, prepared, exported, calibrated, sensitive, calibrate, test, confirm)
        steps.append(confirm_step(*asked))
    return steps


def _searches(
    context: Context,
    names: Sequence[str],
    targets: Sequence[TargetSpec],
    prepared: Step,
    exported: Mapping[Format, Step],
    calibrated: Mapping[Format, Step],
) -> tuple[dict[Format, Step], dict[str, Step]]:
    """The steps of the recipes that search: the sensitivity of each format, and a search for each recipe."""
    config = context.loaded.config
    wanted, calibrate, test = config.search.target, config.calibration_data(), config.data.spec("test")
    asking = [name for name in names if recipe(name).start == "search"]
    if asking and not config.budgets.max_drop:
        raise UsageError(
            f"{asking[0]}: there is no target to search for",
            hint="say what may be lost: `budgets: {max_drop: {top1: 0.01}}`, or of cosine or top1_agreement",
        )
    mixing = [name for name in names if recipe(name).start == "mixed"]
    if mixing and not config.mixed.ops:
        raise UsageError(
            f"{mixing[0]}: deploy.yaml has no `mixed`, so there is nothing to mix",
            hint="say what differs from int8: `mixed: {ops: {SOFTMAX: float32, 'block_3/.*': int16x8}}`",
        )
    target = next((spec for spec in targets if spec.name == wanted), targets[0])
    sensitive = {
        format: sensitivity_step(context, format, prepared, exported[format], calibrated[format], calibrate)
        for format in dict.fromkeys(recipe(name).format for name in asking)
    }
    searched = {}
    for name in asking:
        format = recipe(name).format
        parts = (prepared, exported[format], calibrated[format], sensitive[format])
        searched[name] = search_step(context, name, *parts, calibrate, test, target)
    return sensitive, searched


def _recipes(context: Context, kind: SourceKind, asked: Sequence[str]) -> list[str]:
    declared = context.loaded.config.recipes
    suiting = [name for name in RECIPES if _suits(kind, name)]
    # Options change the model's own inputs or are for one kind of CPU: they are to be asked for.
    names = list(asked) or list(declared) or [name for name in suiting if name not in OPTIONAL]
    own = next((name for name in suiting if recipe(name).start == "search"), AUTO)
    names = [own if name == AUTO else name for name in names]
    for name in names:
        if name not in RECIPES and name != AUTO:
            message, hint = unknown(name)
            raise UsageError(f"--recipe {name}: {message}", hint=hint)
        if name not in suiting:
            raise UsageError(f"{name}: {_why_not(context, kind, name)}", hint=f"recipes for it: {', '.join(suiting)}")
        if weight_bits(name) and context.loaded.config.source.state:
            raise UsageError(
                f"{name}: a model with `source.state` cannot be fine-tuned here", hint="leave the qat recipes out"
            )
    return list(dict.fromkeys(names))


def _suits(kind: SourceKind, name: str) -> bool:
    found = recipe(name)
    if found.format not in FORMATS[kind] or (kind in QUANTIZED) != name.endswith(AS_IS):
        return False
    return (kind in TRAINEES or not weight_bits(name)) and (
        found.start != "source" or found.format != "tflite" or kind not in (*OWN_FORMAT, "pytorch")
    )


def _why_not(context: Context, kind: SourceKind, name: str) -> str:
    """Why a source of this kind has no use for a recipe."""
    if kind in QUANTIZED:
        found = marks(QUANTIZED[kind], model_path(context))
        return (
            f"{context.loaded.config.source.model} is quantized already (it has {', '.join(found)}): quantizing it "
            "again would add a second error; deploy it as it is, or give the float model it was made from"
        )
    if name.endswith(AS_IS):
        return "is for files that are quantized already, this is a float32 source"
    wanted = recipe(name)
    if wanted.format not in FORMATS[kind]:
        return f"not available: {NOT_AVAILABLE.get((kind, wanted.format), f'a {kind} source has no way there')}"
    if weight_bits(name):
        return f"only a Keras or PyTorch model can be fine-tuned, this is a {kind} source: its graph is made to compute"
    return f"not available: it is an option of TensorFlow's converter, which starts from a TensorFlow model, not {kind}"
