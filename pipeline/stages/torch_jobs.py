"""The worker's side of `export` for PyTorch: what decides the source's answers, and its three exports."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.errors import ConversionFailed
from pipeline.exporters.source import missing_torch
from pipeline.runtimes.state import State, write_state

Report = Callable[[int, int], None]


def digest(*, model: Path, factory: str, base: Path, report: Report) -> str:
    """SHA-256 over the weights and the user's code that makes the module.

    A function may read any file, so its own text says little: what it made is looked at.

    Raises:
        InputError: it cannot be made.
    """
    try:
        from pipeline.exporters.torch_code import module_digest
        from pipeline.exporters.torch_load import function_of, load
    except ModuleNotFoundError as error:
        raise missing_torch(str(error.name), f"reading {model.name}") from None
    made = load(model, factory=factory, base=base)
    return module_digest(made.module, factory or function_of(model), base)


def to_tflite(*, source: Path, scratch: Path, report: Report, state: State | None = None) -> dict[str, Any]:
    """The program → float `.tflite` at `scratch`/model."""
    try:
        from pipeline.exporters.torch_to_tflite import convert
    except ModuleNotFoundError as error:
        raise missing_torch(str(error.name), "exporting to TFLite") from None
    convert(source, scratch / "model")
    write_state("tflite", scratch / "model", state or {})
    return {"notes": ()}


def to_onnx(*, source: Path, opset: int, scratch: Path, report: Report, state: State | None = None) -> dict[str, Any]:
    """The program → float `.onnx` at `scratch`/model."""
    try:
        import onnxscript  # noqa: F401  torch imports it late, and says so in ten lines

        from pipeline.exporters.torch_to_onnx import LEAST_OPSET, convert
    except ModuleNotFoundError as error:
        raise missing_torch(str(error.name), "exporting to ONNX") from None
    from pipeline import onnx_file

    onnx_file.write(convert(source, opset=opset), scratch / "model")
    raised = (
        (f"opset {LEAST_OPSET} instead of {opset}: PyTorch's exporter begins there",) if opset < LEAST_OPSET else ()
    )
    write_state("onnx", scratch / "model", state or {})
    return {"notes": raised}


def to_pt(*, source: Path, scratch: Path, report: Report, state: State | None = None) -> dict[str, Any]:
    """The program → float TorchScript at `scratch`/model.

    Raises:
        ConversionFailed: there is a state, which a file of this format cannot name.
    """
    if state:
        raise ConversionFailed("TorchScript files have no place for `source.state`", hint="use litert or onnx recipes")
    from pipeline.exporters.torch_program import examples, read_program, refuse_free, write_torchscript

    program = read_program(source)
    refuse_free(program, "TorchScript is traced, and tracing makes sizes constants")
    write_torchscript(program.module(check_guards=False), examples(program), scratch / "model")
    return {"notes": ()}
