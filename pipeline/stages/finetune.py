"""Fine-tuning, a sub-step of export: it gives another `Prepared` source, from which export, calibrate and quantize
go on as from the first. Quality is still judged against the user's own model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.finetune.settings import Settings
from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.records import Prepared
from pipeline.samples import DataSpec
from pipeline.stages.context import Context, Progress, data_settings, reference_digest, refusing

# What int8 rounds away is small: steps fit for int4 would do more harm than that.
_LEARNING_RATES = {4: 3e-3, 8: 3e-4}


def finetune_step(context: Context, model: Path, prepared: Step, calibrate: DataSpec, *, weight_bits: int) -> Step:
    """The Keras source after training for int8 activations and weights of `weight_bits`."""
    asked = context.loaded.config.qat
    limit = min(calibrate.limit or asked.samples, asked.samples)
    data = calibrate.model_copy(update={"truth": asked.truth, "limit": limit})

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]

        def work() -> Prepared:
            # The digest of the source: a checkpoint of another model under the same fingerprint must not be used.
            unfinished = context.store.unfinished("export", step.name, f"{step.fingerprint[:32]}-{source.blob[:32]}")
            with context.scratch() as scratch:
                fields = context.worker.call(
                    "pipeline.stages.finetune_jobs:finetune",
                    report,
                    model=model,
                    data=data,
                    calibrate=calibrate,
                    inputs=source.inputs,
                    outputs=source.outputs,
                    weight_bits=weight_bits,
                    settings=Settings(
                        epochs=asked.epochs,
                        patience=asked.patience,
                        batch_size=asked.batch_size,
                        learning_rate=asked.learning_rate or _LEARNING_RATES[weight_bits],
                        held_out=asked.held_out,
                        seed=asked.seed,
                    ),
                    loss=asked.loss,
                    base=context.base,
                    scratch=scratch,
                    checkpoint=unfinished / "checkpoint",
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

    step = Step(
        stage="export",
        name=f"qat-w{weight_bits}",
        run=run,
        records=(Prepared,),
        needs=(prepared,),
        settings={
            "weight_bits": weight_bits,
            "qat": asked.model_dump(mode="json"),
            "loss": reference_digest(asked.loss, context.base) if asked.loss else "",
            "data": data_settings(data, context.base),
        },
        tools=versions("keras", "tensorflow", "numpy"),
    )
    return step
