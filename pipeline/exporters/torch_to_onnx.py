"""PyTorch → ONNX with torch's own exporter, which needs onnxscript."""

from pathlib import Path

import onnx
import torch
from torch.onnx import OnnxExporterError

from pipeline.errors import ConversionFailed
from pipeline.exporters.torch_program import examples, read_program

LEAST_OPSET = 18  # torch translates to this one and later; converting down from it fails on real models (Pad)


def convert(source: Path, *, opset: int) -> onnx.ModelProto:
    """Convert the program to a float ONNX model of the given opset, or of the least that torch writes."""
    program = read_program(source)
    given = examples(program)
    outputs = [str(key) for key in program.module(check_guards=False)(**given)]
    try:
        made = torch.onnx.export(
            program,
            kwargs=given,
            dynamo=True,
            opset_version=max(opset, LEAST_OPSET),
            input_names=list(given),
            output_names=outputs,
            verbose=False,
        )
    except OnnxExporterError as error:
        reason = next(iter(str(error.__cause__ or error).strip().splitlines()), "it says no more")
        raise ConversionFailed(
            f"torch.onnx.export cannot convert it: {reason[:300]}", hint="try the litert recipes"
        ) from error
    assert made is not None
    model: onnx.ModelProto = made.model_proto
    for part in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]  # stack traces, half the size of a small file
    onnx.checker.check_model(model)
    return model
