"""export: the source with its shapes fixed and the data checked against it, then the float model in each format."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import DeployError, EnvironmentFault, InputError
from pipeline.exporters.detect import SourceKind
from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.records import Exported, Format, Prepared
from pipeline.samples import DataSpec
from pipeline.samples.user_function import is_function_reference
from pipeline.stages.context import Context, Progress, check_room, content_digest, data_settings, refusing
from pipeline.worker import JobRaised, WorkerDied

_TOOLS = {
    "keras": ("keras", "tensorflow"),
    "saved_model": ("tensorflow",),
    "onnx": ("onnx", "onnxruntime"),
    "pytorch": ("torch",),
    "tflite": ("tensorflow", "ai-edge-litert"),
    "to_onnx": ("tensorflow", "tf2onnx", "onnx", "onnxruntime"),
}
_TORCH_TOOLS: Mapping[Format, tuple[str, ...]] = {
    "tflite": ("torch", "litert-torch", "ai-edge-litert"),
    "onnx": ("torch", "onnxscript", "onnx", "onnxruntime"),
    "pt": ("torch",),
}


def model_path(context: Context) -> Path:
    """Where the source model is."""
    return (context.base / Path(context.loaded.config.source.model).expanduser()).resolve()


def prepare_step(context: Context, kind: SourceKind, calibrate: DataSpec, test: DataSpec) -> Step:
    """The source, bound and checked; a fault here is the user's to mend, so it ends the run."""
    source = context.loaded.config.source
    path = model_path(context)

    def run(_: Results, report: Progress) -> Prepared:
        with context.scratch() as scratch:
            try:
                fields = context.worker.call(
                    "pipeline.stages.export_jobs:prepare",
                    report,
                    kind=kind,
                    model=path,
                    signature=source.signature,
                    factory=source.factory,
                    shapes=source.inputs,
                    calibrate=calibrate,
                    test=test,
                    base=context.base,
                    scratch=scratch,
                )
            except (WorkerDied, JobRaised) as error:
                check_room(context)
                raise _unusable(path, error) from error
            return Prepared(
                source_kind=kind,
                blob=context.store.add_file(scratch / "model"),
                reference=context.store.add_file(scratch / "reference"),
                **fields,
            )

    return Step(
        stage="export",
        name="source",
        run=run,
        records=(Prepared,),
        settings={
            "kind": kind,
            "model": _source_digest(context, path, kind),
            "signature": source.signature,
            "shapes": source.inputs,
            "calibrate": data_settings(calibrate, context.base),
            "test": data_settings(test, context.base),
        },
        tools=versions(*_TOOLS[kind], "numpy", "pillow"),
    )


def _source_digest(context: Context, path: Path, kind: SourceKind) -> str:
    """Digest of the file or folder; of a PyTorch function the digest of what it makes, for it may read any file."""
    factory = context.loaded.config.source.factory
    if kind != "pytorch" or not (factory or is_function_reference(path.name)):
        return content_digest(path)
    try:
        found: str = context.worker.call(
            "pipeline.stages.torch_jobs:digest", model=path, factory=factory, base=context.base
        )
    except (WorkerDied, JobRaised) as error:
        raise _unusable(path, error) from error
    return found


def _unusable(path: Path, error: WorkerDied | JobRaised) -> DeployError:
    lines = "\n".join(f"    {line}" for line in error.last_output[-5:])
    said = f"{path}: loading or running it failed: {error.message}\n{lines}".rstrip()
    if isinstance(error, WorkerDied) and error.killed:
        return EnvironmentFault(said, hint=f"{error.hint}: give this host more memory, or stop what else needs it")
    return InputError(said, hint="check that the model runs in its own framework")


def export_step(context: Context, format: Format, prepared: Step, calibrate: DataSpec, *, name: str = "") -> Step:
    """The float model in `format`, compared with the source's own answer; `name` when it is not the first of these."""
    opset = context.loaded.config.source.opset

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        jobs = "torch_jobs" if source.source_kind == "pytorch" else "export_jobs"
        arguments: dict[str, Any] = {"opset": opset} if format == "onnx" else {}
        if format == "onnx" and jobs == "export_jobs":
            arguments["archived"] = source.source_kind != "onnx"

        def work() -> Exported:
            with context.scratch() as scratch:
                made = context.worker.call(
                    f"pipeline.stages.{jobs}:to_{format}",
                    report,
                    source=context.store.path(source.blob),
                    scratch=scratch,
                    **arguments,
                )
                compared = context.worker.call(
                    "pipeline.stages.export_jobs:compare_hop",
                    report,
                    format=format,
                    model=scratch / "model",
                    reference=context.store.path(source.reference),
                    calibrate=calibrate,
                    inputs=source.inputs,
                    base=context.base,
                )
                size = (scratch / "model").stat().st_size
                return Exported(
                    format=format,
                    blob=context.store.add_file(scratch / "model"),
                    size_bytes=size,
                    tools=tools,
                    **made,
                    **compared,
                )

        return refusing(context, "export", work)

    of_torch = prepared.settings.get("kind") == "pytorch"
    tools = versions(*(_TORCH_TOOLS[format] if of_torch else _TOOLS["to_onnx" if format == "onnx" else format]))
    return Step(
        stage="export",
        name=name or format,
        run=run,
        records=(Exported,),
        needs=(prepared,),
        settings={"opset": opset} if format == "onnx" else {},
        tools=tools,
    )


def equalize_step(
    context: Context, format: Format, prepared: Step, exported: Step, calibrate: DataSpec, *, name: str
) -> Step:
    """The float model with its layers' weights equalised: the same function, so it is compared like the export."""

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        plain: Exported = results[exported]

        def work() -> Exported:
            with context.scratch() as scratch:
                output = scratch / "model"
                pairs = context.worker.call(
                    "pipeline.stages.export_jobs:equalize",
                    report,
                    format=format,
                    model=context.store.path(plain.blob),
                    output=output,
                )
                compared = context.worker.call(
                    "pipeline.stages.export_jobs:compare_hop",
                    report,
                    format=format,
                    model=output,
                    reference=context.store.path(source.reference),
                    calibrate=calibrate,
                    inputs=source.inputs,
                    base=context.base,
                )
                size = output.stat().st_size
                return replace(
                    plain,
                    blob=context.store.add_file(output),
                    size_bytes=size,
                    notes=(*plain.notes, f"{pairs} pairs of layers equalised"),
                    tools=tools,
                    **compared,
                )

        return refusing(context, "export", work)

    tools = versions("ai-edge-litert") if format == "tflite" else versions("onnx")
    return Step(
        stage="export",
        name=name,
        run=run,
        records=(Exported,),
        needs=(prepared, exported),
        tools=tools,
    )
