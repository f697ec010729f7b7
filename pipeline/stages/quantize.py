"""quantize: one candidate per recipe, loaded once before it counts."""

from collections.abc import Mapping
from typing import Any

from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.recipes.recipe import Recipe, recipe
from pipeline.records import Artifact, Exported, Format, Prepared, Ranges, Searched
from pipeline.samples import DataSpec
from pipeline.stages.context import Context, Progress, data_settings, refusing

RUNTIME_TOOLS: Mapping[Format, str] = {"tflite": "ai-edge-litert", "onnx": "onnxruntime", "pt": "torch"}


def quantize_step(
    context: Context,
    name: str,
    prepared: Step,
    exported: Step,
    calibrated: Step | None,
    searched: Step | None,
    calibrate: DataSpec,
) -> Step:
    """The candidate of recipe `name`; `calibrated` and `searched` are given when the recipe starts from those."""
    chosen = recipe(name)
    declared = context.loaded.config.mixed if chosen.start == "mixed" else None
    mixed = {"rules": declared.ops, "rest": declared.rest} if declared else {}
    tools = versions(*chosen.tools, RUNTIME_TOOLS[chosen.format])

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        float_model: Exported = results[exported]
        ranges: Ranges | None = results[calibrated] if calibrated else None
        found: Searched | None = results[searched] if searched else None

        def work() -> Artifact:
            with context.scratch() as scratch:
                output = scratch / f"candidate.{chosen.format}"
                fields = context.worker.call(
                    "pipeline.stages.candidate_jobs:quantize",
                    report,
                    name=name,
                    source=context.store.path(source.blob),
                    float_model=context.store.path(float_model.blob),
                    ranges=context.store.path(_fitting(chosen, ranges)) if ranges else None,
                    calibrate=calibrate,
                    inputs=source.inputs,
                    base=context.base,
                    precisions=found.precisions if found else {},
                    repairs=found.repairs if found else (),
                    output=output,
                    scratch=scratch,
                    **mixed,
                )
                kept = context.store.add_model(chosen.format, output)
                return Artifact(
                    recipe=name,
                    format=chosen.format,
                    blob=kept.blob,
                    beside=kept.beside,
                    size_bytes=kept.size_bytes,
                    float_bytes=float_model.size_bytes,
                    tools=tools,
                    notes=(
                        *source.notes,
                        *float_model.notes,
                        *(ranges.notes if ranges else ()),
                        *fields.pop("notes"),
                    ),
                    **fields,
                )

        return refusing(context, "quantize", work)

    needs = (prepared, exported, *((calibrated,) if calibrated else ()), *((searched,) if searched else ()))
    return Step(
        stage="quantize",
        name=name,
        run=run,
        records=(Artifact,),
        needs=needs,
        # As pairs: the first rule that fits counts, and a fingerprint sorts the keys of a mapping.
        settings={
            **({"rules": list(declared.ops.items()), "rest": declared.rest} if declared else {}),
            **({"calibrate": data_settings(calibrate, context.base)} if getattr(chosen, "folds", False) else {}),
        },
        tools=tools,
        version=7,
    )


def _fitting(chosen: Recipe, ranges: Ranges) -> str:
    """With 16 bits for activations the step is so small that every value is worth keeping."""
    return ranges.extremes if getattr(chosen, "precision", "int8") == "int16x8" else ranges.blob
