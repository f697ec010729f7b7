"""export: the source with its shapes fixed and the data checked against it, then the float model in each format."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import DeployError, EnvironmentFault, InputError
from pipeline.exporters import OWN_FORMAT, QUANTIZED
from pipeline.exporters.detect import SourceKind
from pipeline.flow import Results, Step
from pipeline.model_files import beside
from pipeline.plugins import versions
from pipeline.records import Exported, Format, Prepared
from pipeline.samples import DataSpec
from pipeline.samples.user_function import is_function_reference
from pipeline.stages.context import (
    Context,
    Progress,
    check_room,
    content_digest,
    data_settings,
    reference_digest,
    refusing,
)
from pipeline.stages.foresight import announced, free_memory_bytes
from pipeline.worker import JobRaised, WorkerDied

_TOOLS = {
    "keras": ("keras", "tensorflow"),
    "keras_h5": ("tf_keras", "keras", "h5py", "tensorflow"),
    "saved_model": ("tensorflow",),
    "onnx": ("onnx", "onnxruntime"),
    "tflite": ("ai-edge-litert",),
    "quantized_onnx": ("onnx", "onnxruntime"),
    "quantized_tflite": ("ai-edge-litert",),
    "pytorch": ("torch",),
    "to_tflite": ("tensorflow", "ai-edge-litert"),
    "to_onnx": ("tensorflow", "tf2onnx", "onnx", "onnxruntime", "onnxslim"),
}
_TORCH_TOOLS: Mapping[Format, tuple[str, ...]] = {
    "tflite": ("torch", "litert-torch", "ai-edge-litert"),
    "onnx": ("torch", "onnxscript", "onnx", "onnxruntime", "onnxslim"),
    "pt": ("torch",),
}


_ONNX = ("onnx", "quantized_onnx")


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
                    state=source.state,
                )
            except (WorkerDied, JobRaised) as error:
                check_room(context)
                raise _unusable(path, error) from error
            kept = context.store.add_model("onnx" if kind in _ONNX else "tflite", scratch / "model")
            return Prepared(
                source_kind=kind,
                blob=kept.blob,
                beside=kept.beside,
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
            "factory": [source.factory, reference_digest(source.factory, context.base)] if source.factory else [],
            "state": source.state,
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
        files = [path, *(path.parent / name for name in beside("onnx" if kind in _ONNX else "tflite", path))]
        digests = [content_digest(file) for file in files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
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
    opset, state = context.loaded.config.source.opset, context.loaded.config.source.state

    def run(results: Results, report: Progress) -> Any:
        source: Prepared = results[prepared]
        job, arguments = float_job(format, source.source_kind, opset)
        size_bytes = context.store.path(source.blob).stat().st_size + sum(source.beside.values())
        report(0, 0, announced(size_bytes, free_memory_bytes()))

        def work() -> Exported:
            with context.scratch() as scratch:
                made = context.worker.call(
                    f"pipeline.stages.{job}",
                    report,
                    source=context.store.path(source.blob),
                    scratch=scratch,
                    state=state,
                    **arguments,
                )
                if format == "onnx" and source.source_kind not in QUANTIZED:
                    made["notes"] = (*made["notes"], *_prepare(context, source, scratch, calibrate, report))
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
                kept = context.store.add_model(format, scratch / "model")
                return Exported(
                    format=format,
                    blob=kept.blob,
                    beside=kept.beside,
                    size_bytes=kept.size_bytes,
                    tools=tools,
                    **made,
                    **compared,
                )

        return refusing(context, "export", work)

    of_torch = prepared.settings.get("kind") == "pytorch"  # of a fine-tuned source too
    tools = versions(*(_TORCH_TOOLS[format] if of_torch else _TOOLS[f"to_{format}"]))
    return Step(
        stage="export",
        name=name or format,
        run=run,
        records=(Exported,),
        needs=(prepared,),
        settings={**({"opset": opset} if format == "onnx" else {}), "state": state},
        tools=tools,
        version=2,
    )


def _prepare(
    context: Context, source: Prepared, scratch: Path, calibrate: DataSpec, report: Progress
) -> tuple[str, ...]:
    """Make the `.onnx` at `scratch`/model ready for quantization; notes of what was done and what was left out.

    Optimisers abort on some models. The model is usable without them, and stands until they are through.
    """
    try:
        notes: tuple[str, ...] = context.worker.call(
            "pipeline.stages.export_jobs:make_quantizable",
            report,
            calibrate=calibrate,
            inputs=source.inputs,
            base=context.base,
            scratch=scratch,
        )
    except WorkerDied as death:
        if death.killed:
            raise
        return (f"not prepared for quantization: {death.message}",)
    return notes


def float_job(format: Format, kind: str, opset: int) -> tuple[str, dict[str, Any]]:
    """The worker's job that makes the float model, and what it is given besides the source."""
    if kind in QUANTIZED or kind == format == "tflite":
        return "export_jobs:as_is", {"format": format, "named": kind == "tflite"}
    if kind == "pytorch":
        return f"torch_jobs:to_{format}", {"opset": opset} if format == "onnx" else {}
    if format == "onnx":
        return "export_jobs:to_onnx", {"opset": opset, "archived": kind not in OWN_FORMAT}
    return "export_jobs:to_tflite", {}


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
                kept = context.store.add_model(format, output)
                return replace(
                    plain,
                    blob=kept.blob,
                    beside=kept.beside,
                    size_bytes=kept.size_bytes,
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
