"""What recipes start from: a source, as given or fine-tuned, and its float models and their ranges in each format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.flow import Step
from pipeline.recipes.recipe import WEIGHT_BITS, is_equalized, recipe
from pipeline.records import Format
from pipeline.samples import DataSpec
from pipeline.stages.calibrate import calibrate_step
from pipeline.stages.context import Context
from pipeline.stages.export import equalize_step, export_step, model_path
from pipeline.stages.finetune import Beginning, finetune_step
from pipeline.stages.quantize import quantize_step

BOTH_FORMATS: tuple[Format, ...] = ("tflite", "onnx")
_ALL_FORMATS: tuple[Format, ...] = (*BOTH_FORMATS, "pt")  # nothing calibrates or searches the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """The steps from one source; `leveled` are equalised float models, and `relearned` the ranges of those."""

    source: Step
    exported: Mapping[Format, Step]
    leveled: Mapping[Format, Step]
    calibrated: Mapping[Format, Step]
    relearned: Mapping[Format, Step]

    def quantize_step(self, context: Context, name: str, searched: Step | None, calibrate: DataSpec) -> Step:
        """The candidate of recipe `name`, from the float model and ranges it asks for."""
        format = recipe(name).format
        models, ranges = (self.leveled, self.relearned) if is_equalized(name) else (self.exported, self.calibrated)
        ranged = ranges[format] if needs_ranges(name) else None
        return quantize_step(context, name, self.source, models[format], ranged, searched, calibrate)


def branches(context: Context, names: Sequence[str], prepared: Step, calibrate: DataSpec) -> dict[int, Branch]:
    """One branch for each width of weights that recipes want the source trained for; 0: as it was given.

    Training begins with the ranges of the source as it was given, in the first format that its recipes are of.
    """
    by_bits = {bits: [name for name in names if weight_bits(name) == bits] for bits in map(weight_bits, names)}
    begun = {bits: _formats(own)[0] for bits, own in by_bits.items() if bits}
    plain = by_bits.get(0, [])
    found = {0: _branch(context, plain, prepared, calibrate, "", tuple(begun.values()))}
    for bits, format in sorted(begun.items()):
        beginning = Beginning(format=format, exported=found[0].exported[format], calibrated=found[0].calibrated[format])
        source = finetune_step(context, model_path(context), prepared, beginning, calibrate, weight_bits=bits)
        found[bits] = _branch(context, by_bits[bits], source, calibrate, f"{source.name}-")
    return found


def branch_steps(found: Mapping[int, Branch]) -> list[Step]:
    """All their steps, each after what it needs."""
    steps: list[Step] = []
    for branch in found.values():
        steps += [branch.source, *branch.exported.values(), *branch.leveled.values()]
        steps += [*branch.calibrated.values(), *branch.relearned.values()]
    return steps


def weight_bits(name: str) -> int:
    """The width of weights that the recipe wants the source trained for; 0: none."""
    return WEIGHT_BITS.get(recipe(name).start, 0)


def needs_ranges(name: str) -> bool:
    """Whether the recipe starts from calibrated ranges."""
    return recipe(name).start in ("ranges", "search", "mixed") or bool(weight_bits(name))


def _branch(
    context: Context,
    names: Sequence[str],
    source: Step,
    calibrate: DataSpec,
    label: str,
    also: Sequence[Format] = (),
) -> Branch:
    """The branch for these recipes; `also` are formats in which others want ranges."""
    plain = [name for name in names if not is_equalized(name)]
    equalized = _formats([name for name in names if is_equalized(name)])
    ranged = _formats([name for name in plain if needs_ranges(name)], also)
    exported = {f: export_step(context, f, source, calibrate, name=f"{label}{f}") for f in _formats(names, also)}
    leveled = {f: equalize_step(context, f, source, exported[f], calibrate, name=f"{label}{f}-cle") for f in equalized}
    return Branch(
        source=source,
        exported=exported,
        leveled=leveled,
        calibrated={f: calibrate_step(context, f, source, exported[f], calibrate, name=f"{label}{f}") for f in ranged},
        relearned={
            f: calibrate_step(context, f, source, step, calibrate, name=f"{label}{f}-cle")
            for f, step in leveled.items()
        },
    )


def _formats(names: Sequence[str], also: Sequence[Format] = ()) -> list[Format]:
    return [f for f in _ALL_FORMATS if f in also or any(recipe(name).format == f for name in names)]
