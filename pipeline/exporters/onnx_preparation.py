"""A float `.onnx` made ready for onnxruntime's quantizers, which want constants as initializers and known shapes.

Every step is checked by itself: the model after it must take and give the same tensors and answer real samples as the
model did before all of them. A step that fails, or changes the answers, is left out with a note, and the next one goes
on from where the last good one stopped.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

from pipeline.runtimes.onnx import runtime_reason

Arrays = Mapping[str, np.ndarray[Any, Any]]
Step = Callable[[onnx.ModelProto, Path], onnx.ModelProto]
# DequantizeLinear has one scale per channel from 13 on; 17 is what our own exports have.
_LEAST_OPSET, _RAISED_OPSET = 13, 17
_SAMPLES = 2
# Folding in float32 gives 100 dB and more; what loses more than this computes something else.
_LEAST_SQNR_DB, _NO_ERROR = 60.0, 1e-5
# A protobuf message ends at 2 GB, and the tools below hold several copies of one.
_LARGEST_BYTES = 1_000_000_000
# Folding a constant that is read broadcast writes it out in full; inferred shapes take a few bytes for each tensor.
_MOST_GROWTH, _SLACK_BYTES = 1.2, 20_000
_REASON_CHARS = 160


def prepared(
    raw: Path, output: Path, samples: Iterable[Arrays], steps: Mapping[str, Step] | None = None
) -> tuple[str, ...]:
    """Write the prepared model to `output` and return what was done to it and what was left out, and why.

    `steps` is `STEPS` unless given.
    """
    size_bytes = raw.stat().st_size
    if size_bytes > _LARGEST_BYTES:
        raw.replace(output)
        return (f"not prepared for quantization: {size_bytes / 1e9:.1f} GB is too large for the tools that do it",)
    inputs = list(islice(iter(samples), _SAMPLES))
    # Between steps only the bytes are kept: a model, its copy and a session of each would be many times its size.
    current = raw.read_bytes()
    ends, nodes = _ends(current), _nodes(current)
    expected = _answers(current, inputs)
    notes = []
    for name, step in (STEPS if steps is None else steps).items():
        try:
            changed = step(onnx.ModelProto.FromString(current), output.parent).SerializeToString(deterministic=True)
            if _ends(changed) != ends:
                raise ValueError("it changes the model's inputs or outputs")
            if len(changed) > _MOST_GROWTH * len(current) + _SLACK_BYTES:
                raise ValueError(f"it makes the file {len(changed) / len(current) - 1:.0%} larger")
            _check_answers(expected, _answers(changed, inputs))
        except Exception as error:  # onnx, onnxslim and onnxruntime raise children of Exception of many kinds
            notes.append(f"{name} left out: {runtime_reason(error)[:_REASON_CHARS]}")
            continue
        current = changed
        if _nodes(current) != nodes:
            notes.append(f"{name}: {nodes} → {_nodes(current)} nodes")
            nodes = _nodes(current)
    output.write_bytes(current)
    return tuple(notes)


def raise_opset(model: onnx.ModelProto, scratch: Path) -> onnx.ModelProto:
    """Really converted: a higher number alone breaks the ops that changed in between."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), _RAISED_OPSET)
    return onnx.version_converter.convert_version(model, _RAISED_OPSET) if opset < _LEAST_OPSET else model


def constants_to_initializers(model: onnx.ModelProto, scratch: Path) -> onnx.ModelProto:
    """Quantizers look for weights among the initializers only."""
    outputs = {value.name for value in model.graph.output}
    for node in [n for n in model.graph.node if n.op_type == "Constant" and n.output[0] not in outputs]:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if value is None or value.data_type == TensorProto.STRING:
            continue
        moved = model.graph.initializer.add()
        moved.CopyFrom(value)
        moved.name = node.output[0]
        model.graph.node.remove(node)
    return model


def slim(model: onnx.ModelProto, scratch: Path) -> onnx.ModelProto:
    """onnxslim folds constants, joins batch normalization with its convolution, and drops what nobody reads."""
    import onnxslim

    slimmed: onnx.ModelProto = onnxslim.slim(model)
    return slimmed


def optimise(model: onnx.ModelProto, scratch: Path) -> onnx.ModelProto:
    """onnxruntime's own preparation: its basic optimisation, then shape inference."""
    from onnxruntime.quantization import quant_pre_process

    path = scratch / "optimised.onnx"
    # From a file: of a model in memory it moves every constant out, and then cannot infer the shapes they decide.
    onnx.save(model, str(scratch / "plain.onnx"))
    # Symbolic inference fails on real models ("Incomplete symbolic shape inference"); ours have no symbols left.
    quant_pre_process(str(scratch / "plain.onnx"), str(path), skip_symbolic_shape=True)
    made = onnx.load(str(path))
    path.unlink()
    return made


STEPS: Mapping[str, Step] = {
    "raising the opset": raise_opset,
    "constants as initializers": constants_to_initializers,
    "onnxslim": slim,
    "onnxruntime's optimisation": optimise,
}


def _answers(model: bytes, inputs: list[Arrays]) -> list[dict[str, np.ndarray[Any, Any]]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(sample)), strict=True)) for sample in inputs]


def _nodes(model: bytes) -> int:
    return len(onnx.ModelProto.FromString(model).graph.node)


def _ends(model: bytes) -> list[tuple[str, int]]:
    """Names and data types of what goes in and comes out."""
    graph = onnx.ModelProto.FromString(model).graph
    constants = {value.name for value in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    return [(value.name, value.type.tensor_type.elem_type) for value in (*given, *graph.output)]


def _check_answers(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    for right, answer in zip(expected, found, strict=True):
        for name, array in right.items():
            if array.dtype.kind != "f":
                if not np.array_equal(array, answer[name]):
                    raise ValueError(f"it changes the answer {name!r}")
                continue
            error = answer[name].astype(np.float64) - array.astype(np.float64)
            power, noise = float(np.square(array.astype(np.float64)).sum()), float(np.square(error).sum())
            worst = float(np.abs(error).max(initial=0.0))
            close = worst <= _NO_ERROR or (noise and 10 * np.log10(max(power, 1e-300) / noise) >= _LEAST_SQNR_DB)
            if not close:  # NaN is not close
                raise ValueError(f"it changes the answer {name!r} by up to {worst:.3g}")
