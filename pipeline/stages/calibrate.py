"""calibrate: the range of every tensor of a float export, observed once and used by every recipe that needs it."""

from typing import Any

from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.records import Exported, Format, Prepared, Ranges
from pipeline.samples import DataSpec
from pipeline.stages.context import Context, Progress, refusing


def calibrate_step(
    context: Context, format: Format, prepared: Step, exported: Step, calibrate: DataSpec, *, name: str = ""
) -> Step:
    """Ranges of the float model in `format`, learned ones where training left some; `name` as for `export_step`."""
    tools = versions("ai-edge-litert" if format == "tflite" else "onnxruntime", "numpy")

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        model: Exported = results[exported]

        def work() -> Ranges:
            with context.scratch() as scratch:
                output = scratch / "ranges.json"
                fields = context.worker.call(
                    "pipeline.stages.candidate_jobs:calibrate",
                    report,
                    format=format,
                    model=context.store.path(model.blob),
                    calibrate=calibrate,
                    inputs=source.inputs,
                    base=context.base,
                    learned=context.store.path(source.learned) if source.learned else None,
                    output=output,
                )
                return Ranges(format=format, blob=context.store.add_file(output), tools=tools, **fields)

        return refusing(context, "calibrate", work)

    needs = (prepared, exported)
    return Step(stage="calibrate", name=name or format, run=run, records=(Ranges,), needs=needs, tools=tools)
