"""calibrate: the range of every tensor of a float export, observed once and used by every recipe that needs it."""

from pathlib import Path
from typing import Any

from pipeline.calibration.observer import Plan
from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.quantities import size
from pipeline.records import Exported, Format, Prepared, Ranges
from pipeline.samples import DataSpec
from pipeline.stages.context import Context, Progress, content_digest, refusing


def calibrate_step(
    context: Context, format: Format, prepared: Step, exported: Step, calibrate: DataSpec, *, name: str = ""
) -> Step:
    """Ranges of the float model in `format`, learned ones where training left some. `name` as for `export_step`."""
    config = context.loaded.config.calibration
    tools = versions("ai-edge-litert" if format == "tflite" else "onnxruntime", "numpy")
    # Sketches of other samples are of the model as exported; a variant's tensors hold other values.
    variant = bool(name) and name != format
    merge = {} if variant else {path: context.base / Path(path).expanduser() for path in config.merge}
    trained = prepared.name != "source"
    left_out = (
        "calibration.merge is not in these ranges: its sketches are of the model as exported"
        + ("; where training learned a range, it began with that of calibration.merge" if trained else ""),
    )

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        model: Exported = results[exported]

        def work() -> Ranges:
            with context.scratch() as scratch:
                common: dict[str, Any] = {
                    "format": format,
                    "model": context.store.path(model.blob),
                    "scratch": scratch,
                    "budget_bytes": config.memory,
                }
                planned: Plan = context.worker.call("pipeline.stages.calibrate_jobs:foresee", **common)
                report(0, 0, _announced(planned))
                fields = context.worker.call(
                    "pipeline.stages.calibrate_jobs:calibrate",
                    report,
                    calibrate=calibrate,
                    inputs=source.inputs,
                    base=context.base,
                    learned=context.store.path(source.learned) if source.learned else None,
                    method=config.method,
                    percentile=config.percentile,
                    merge=merge,
                    **common,
                )
                notes = (*fields.pop("notes"), *(left_out if variant and config.merge else ()))
                return Ranges(
                    format=format,
                    blob=context.store.add_file(scratch / "ranges"),
                    extremes=context.store.add_file(scratch / "extremes"),
                    sketch=context.store.add_file(scratch / "sketch"),
                    tools=tools,
                    notes=notes,
                    **fields,
                )

        return refusing(context, "calibrate", work)

    return Step(
        stage="calibrate",
        name=name or format,
        run=run,
        records=(Ranges,),
        needs=(prepared, exported),
        settings={
            "method": config.method,
            "percentile": config.percentile,
            "memory": config.memory,
            "merge": {path: content_digest(file) for path, file in merge.items()},
            "merge_left_out": variant and bool(config.merge),
        },
        tools=tools,
        version=3,
    )


def _announced(planned: Plan) -> str:
    text = f"will take about {size(planned.peak_bytes)} of memory"
    if len(planned.groups) > 1:
        text += f": {len(planned.groups)} passes over the data, to stay within {size(planned.budget_bytes)}"
    if planned.over_budget:
        text += f"; the largest tensor alone does not fit in {size(planned.budget_bytes)}"
    return text
