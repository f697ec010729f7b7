"""Fine-tuning, a sub-step of export: it gives another `Prepared` source, from which export, calibrate and quantize
go on as from the first. Quality is still judged against the user's own model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.finetune.memory import Plan
from pipeline.finetune.settings import Calibrated, Origin, Settings
from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.quantities import size
from pipeline.records import Exported, Format, Prepared, Ranges
from pipeline.samples import DataSpec
from pipeline.stages.context import Context, Progress, data_settings, reference_digest, refusing
from pipeline.stages.foresight import free_memory_bytes

# What int8 rounds away is small: steps fit for int4 would do more harm than that.
_LEARNING_RATES = {4: 3e-3, 8: 3e-4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """The steps of the source as it was given whose ranges training begins with."""

    format: Format
    exported: Step
    calibrated: Step


def finetune_step(
    context: Context, model: Path, prepared: Step, beginning: Beginning, calibrate: DataSpec, *, weight_bits: int
) -> Step:
    """The source after training for int8 activations and weights of `weight_bits`."""
    asked, source_config = context.loaded.config.qat, context.loaded.config.source
    limit = min(calibrate.limit or asked.samples, asked.samples)
    data = calibrate.model_copy(update={"truth": asked.truth, "limit": limit})
    settings = Settings(
        epochs=asked.epochs,
        patience=asked.patience,
        batch_size=asked.batch_size,
        learning_rate=asked.learning_rate or _LEARNING_RATES[weight_bits],
        held_out=asked.held_out,
        seed=asked.seed,
    )

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        # Training needs none of these: it goes on without when, say, one format cannot be exported.
        float_model, ranges = results[beginning.exported], results[beginning.calibrated]
        known = isinstance(float_model, Exported) and isinstance(ranges, Ranges)

        def work() -> Prepared:
            # The digest of the source: a checkpoint of another model under the same fingerprint must not be used.
            unfinished = context.store.unfinished("export", step.name, f"{step.fingerprint[:32]}-{source.blob[:32]}")
            with context.scratch() as scratch:
                common: dict[str, Any] = {
                    "origin": Origin(
                        kind=source.source_kind,
                        model=model,
                        factory=source_config.factory,
                        base=context.base,
                        prepared=context.store.path(source.blob),
                        inputs=source.inputs,
                        outputs=source.outputs,
                        scratch=scratch,
                    ),
                    "data": data,
                    "weight_bits": weight_bits,
                    "settings": settings,
                }
                planned: Plan = context.worker.call(
                    "pipeline.stages.finetune_jobs:foresee", budget_bytes=asked.memory, **common
                )
                report(0, 0, announced(planned, free_memory_bytes()))
                fields = context.worker.call(
                    "pipeline.stages.finetune_jobs:finetune",
                    report,
                    calibrate=calibrate,
                    loss=asked.loss,
                    part=planned.part,
                    checkpoint=unfinished / "checkpoint",
                    calibrated=Calibrated(
                        format=beginning.format,
                        model=context.store.path(float_model.blob),
                        ranges=context.store.path(ranges.blob),
                        merged=bool(context.loaded.config.calibration.merge),
                        budget_bytes=int(context.loaded.config.calibration.memory),
                    )
                    if known
                    else None,
                    **common,
                )
                made = replace(
                    source,
                    blob=context.store.add_file(scratch / "model"),
                    reference=context.store.add_file(scratch / "reference"),
                    learned=context.store.add_file(scratch / "learned"),
                    **fields,
                )
            context.store.finish("export", step.name)
            return made

        return refusing(context, "export", work)

    of_torch = prepared.settings.get("kind") == "pytorch"
    step = Step(
        stage="export",
        name=f"qat-w{weight_bits}",
        run=run,
        records=(Prepared,),
        needs=(prepared, beginning.exported, beginning.calibrated),
        settings={
            "kind": prepared.settings.get("kind"),
            "weight_bits": weight_bits,
            "qat": asked.model_dump(mode="json"),
            "loss": reference_digest(asked.loss, context.base) if asked.loss else "",
            "data": data_settings(data, context.base),
        },
        tools=versions(*(("torch",) if of_torch else ("keras", "tensorflow")), "numpy"),
        version=2,
        tolerant=True,
    )
    return step


def announced(planned: Plan, free_bytes: int | None) -> str:
    """What training will take, with a warning where it is more than there is."""
    text = f"will take about {size(planned.peak_bytes)} of memory"
    if planned.part < planned.batch:
        text += f": {planned.part} of {planned.batch} samples at once, to stay within {size(planned.budget_bytes)}"
    if planned.peak_bytes > planned.budget_bytes:
        text += f"; one sample alone does not fit in {size(planned.budget_bytes)}"
    return (
        text if free_bytes is None or planned.peak_bytes <= free_bytes else f"{text}; {size(free_bytes)} is free here"
    )
