"""validate: each candidate's answers on the test set against the source model's and against the truth."""

from typing import Any

from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.records import Artifact, Picture, Prepared, Quality
from pipeline.samples import DataSpec
from pipeline.stages.context import Context, Progress, data_settings, reference_digest, refusing


def validate_step(context: Context, name: str, prepared: Step, quantized: Step, test: DataSpec) -> Step:
    """Quality of the candidate of recipe `name`."""
    metrics = context.loaded.config.quality.metrics

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        artifact: Artifact = results[quantized]

        def work() -> Quality:
            with context.scratch() as scratch:
                fields = context.worker.call(
                    "pipeline.stages.validate_jobs:validate",
                    report,
                    format=artifact.format,
                    model=context.store.path(artifact.blob),
                    reference=context.store.path(source.reference),
                    test=test,
                    inputs=source.inputs,
                    metrics=metrics,
                    base=context.base,
                    scratch=scratch,
                )
                gain = fields.pop("error_gain")
                pictures = tuple(
                    Picture(
                        sample=files.pop("sample"),
                        error_gain=gain,
                        **{kind: context.store.add_file(scratch / file) for kind, file in files.items()},
                    )
                    for files in fields.pop("pictures")
                )
                return Quality(
                    recipe=name,
                    golden_inputs=context.store.add_file(scratch / "golden_inputs"),
                    golden_outputs=context.store.add_file(scratch / "golden_outputs"),
                    pictures=pictures,
                    **fields,
                )

        return refusing(context, "validate", work)

    return Step(
        stage="validate",
        name=name,
        run=run,
        records=(Quality,),
        needs=(prepared, quantized),
        settings=quality_settings(context, test),
        tools=versions(
            "ai-edge-litert", "onnxruntime", "numpy", "scikit-image", *(("torch",) if name.startswith("torch-") else ())
        ),
    )


def quality_settings(context: Context, test: DataSpec) -> dict[str, Any]:
    """All that decides a score, for a fingerprint."""
    metrics = context.loaded.config.quality.metrics
    declared = [metric if isinstance(metric, str) else metric.model_dump(mode="json") for metric in metrics]
    functions = [metric if isinstance(metric, str) else getattr(metric, "path", "") for metric in metrics]
    return {
        "metrics": declared,
        "functions": {path: reference_digest(path, context.base) for path in functions if ":" in path},
        "test": data_settings(test, context.base),
    }
