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

from pipeline.model_files import beside, total_bytes
from pipeline.quantities import size
from pipeline.runtimes.onnx import runtime_reason

Arrays = Mapping[str, np.ndarray[Any, Any]]
# Reads the model at the first path and writes another to the second: nothing is held in memory between steps.
Step = Callable[[Path, Path], None]
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
    size_bytes = total_bytes("onnx", raw)
    if size_bytes > _LARGEST_BYTES or beside("onnx", raw):
        raw.replace(output)
        return (f"not prepared for quantization: {size(size_bytes)} is too large for the tools that do it",)
    inputs = list(islice(iter(samples), _SAMPLES))
    raw.replace(output)
    ends, nodes = _described(output)
    expected = _answers(output, inputs)
    notes = []
    changed = output.with_name(f"{output.name}.changed")
    for name, step in (STEPS if steps is None else steps).items():
        try:
            step(output, changed)
            _check_growth(output.stat().st_size, changed.stat().st_size)
            ends_after, nodes_after = _described(changed)
            if ends_after != ends:
                raise ValueError("it changes the model's inputs or outputs")
            _check_answers(expected, _answers(changed, inputs))
        except Exception as error:  # onnx, onnxslim and onnxruntime raise children of Exception of many kinds
            notes.append(f"{name} left out: {runtime_reason(error)[:_REASON_CHARS]}")
            continue
        changed.replace(output)
        if nodes_after != nodes:
            notes.append(f"{name}: {nodes} → {nodes_after} nodes")
            nodes = nodes_after
    changed.unlink(missing_ok=True)
    return tuple(notes)


def raise_opset(given: Path, made: Path) -> None:
    """Really converted: a higher number alone breaks the ops that changed in between."""
    model = onnx.load(str(given))
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), _RAISED_OPSET)
    if opset < _LEAST_OPSET:
        model = onnx.version_converter.convert_version(model, _RAISED_OPSET)
    onnx.save(model, str(made))


def constants_to_initializers(given: Path, made: Path) -> None:
    """Quantizers look for weights among the initializers only."""
    model = onnx.load(str(given))
    outputs = {value.name for value in model.graph.output}
    for node in [n for n in model.graph.node if n.op_type == "Constant" and n.output[0] not in outputs]:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if value is None or value.data_type == TensorProto.STRING:
            continue
        moved = model.graph.initializer.add()
        moved.CopyFrom(value)
        moved.name = node.output[0]
        model.graph.node.remove(node)
    onnx.save(model, str(made))


def slim(given: Path, made: Path) -> None:
    """onnxslim folds constants, joins batch normalization with its convolution, and drops what nobody reads."""
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(str(given))), str(made))


def optimise(given: Path, made: Path) -> None:
    """onnxruntime's own preparation: its basic optimisation, then shape inference.

    From a file: of a model in memory it moves every constant out, and then cannot infer the shapes they decide.
    """
    from onnxruntime.quantization import quant_pre_process

    # Symbolic inference fails on real models ("Incomplete symbolic shape inference"); ours have no symbols left.
    quant_pre_process(str(given), str(made), skip_symbolic_shape=True)


STEPS: Mapping[str, Step] = {
    "raising the opset": raise_opset,
    "constants as initializers": constants_to_initializers,
    "onnxslim": slim,
    "onnxruntime's optimisation": optimise,
}


def _answers(model: Path, inputs: list[Arrays]) -> list[dict[str, np.ndarray[Any, Any]]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, dict(sample)), strict=True)) for sample in inputs]


def _described(path: Path) -> tuple[list[tuple[str, int]], int]:
    """Names and data types of what goes in and comes out, and the number of nodes."""
    graph = onnx.load(str(path)).graph
    constants = {value.name for value in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    return [(value.name, value.type.tensor_type.elem_type) for value in (*given, *graph.output)], len(graph.node)


def _check_growth(before_bytes: int, after_bytes: int) -> None:
    if after_bytes > _MOST_GROWTH * before_bytes + _SLACK_BYTES:
        raise ValueError(f"it makes the file {after_bytes / before_bytes - 1:.0%} larger")


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
