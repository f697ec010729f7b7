"""Models that hand their state to the caller and take it back: a state output feeds a state input of the next step.

Which output feeds which input is written into the model file itself (ONNX: `metadata_props`; TFLite: a metadata
buffer), under `edge_deploy.state`, so that whoever opens the file, also an application on the device, can run it. A
sample of such a model is a sequence: an input has one axis more than the model's, after the batch, and each step takes
its own part of it; an input without that axis is given to every step. The state starts at zero for each sample.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConversionFailed
from pipeline.records import Format
from targets.records import TensorSpec

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
State = Mapping[str, str]  # output -> the input it feeds
KEY = "edge_deploy.state"
_MOST_METADATA = 1000


def initial(inputs: Sequence[TensorSpec], state: State) -> dict[str, Array]:
    """Zeros for each state input; dimensions that the model leaves free are batches: 1."""
    fed = set(state.values())
    return {
        spec.name: np.zeros([1 if size < 0 else size for size in spec.shape], np.dtype(spec.dtype))
        for spec in inputs
        if spec.name in fed
    }


def steps(sample: Arrays, inputs: Sequence[TensorSpec]) -> Iterator[dict[str, Array]]:
    """What each step takes of the sample, without the state."""
    ranks = {spec.name: len(spec.shape) for spec in inputs}
    long = {name for name, array in sample.items() if array.ndim == ranks[name] + 1}
    counts = {name: sample[name].shape[1] for name in long}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))
        raise ConversionFailed(f"the inputs of one sample have different numbers of steps: {said}", hint="mend it")
    for number in range(next(iter(counts.values()), 1)):
        yield {name: array[:, number] if name in long else array for name, array in sample.items()}


def unrolled(
    run: Callable[[dict[str, Array]], Arrays], sample: Arrays, inputs: Sequence[TensorSpec], state: State
) -> dict[str, Array]:
    """The answers of every step, stacked after the batch axis; the state itself is no answer.

    A sample that is one step already has its own state, which counts.
    """
    carried, answers = initial(inputs, state), list[dict[str, Array]]()
    for taken in steps(sample, inputs):
        answered = run({**carried, **taken})
        carried = {fed: np.array(answered[name]) for name, fed in state.items()}
        # Copies: runtimes hand out views of what the next step overwrites.
        answers.append({name: np.array(array) for name, array in answered.items() if name not in state})
    return {
        name: np.stack([one[name] for one in answers], axis=min(1, array.ndim)) for name, array in answers[0].items()
    }


def sequences(specs: Sequence[TensorSpec], hidden: Sequence[str]) -> tuple[TensorSpec, ...]:
    """The tensors as samples have them: without the state, and with an axis of steps after the batch."""
    return tuple(
        TensorSpec(
            name=spec.name,
            shape=(*spec.shape[:1], -1, *spec.shape[1:]) if spec.shape else (),
            dtype=spec.dtype,
            scale=spec.scale,
            zero_point=spec.zero_point,
        )
        for spec in specs
        if spec.name not in hidden
    )


def parse(text: str) -> dict[str, str]:
    """What stands under `edge_deploy.state`."""
    return {str(output): str(fed) for output, fed in json.loads(text).items()} if text else {}


def state_of(format: Format, path: Path) -> dict[str, str]:
    """Output → input, as the file says; empty for a model without a state of this kind."""
    readers = {"tflite": _of_tflite, "onnx": _of_onnx}
    return readers[format](path) if format in readers else {}


def write_state(format: Format, path: Path, state: State) -> None:
    """Write it into the file, unless it is there already."""
    if not state or state_of(format, path) == state:
        return
    text = json.dumps(dict(state), sort_keys=True)
    (_to_tflite if format == "tflite" else _to_onnx)(path, text)


def _of_tflite(path: Path) -> dict[str, str]:
    from pipeline.fit import flatbuffer
    from pipeline.fit.records import Malformed

    try:
        model = flatbuffer.root(path.read_bytes())
        for entry in model.tables(6, _MOST_METADATA):
            if entry.text(0) == KEY:
                buffer = model.item(4, entry.number(1, "<I", 0))
                return parse(buffer.text(0) if buffer else "")
    except (Malformed, struct.error, IndexError):
        return {}  # the interpreter says what is wrong with the file
    return {}


def _to_tflite(path: Path, text: str) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(text.encode(), np.uint8)
    model.buffers.append(buffer)
    entry.name, entry.buffer = KEY, len(model.buffers) - 1
    model.metadata = [*(one for one in model.metadata or () if one.name not in (KEY, KEY.encode())), entry]
    flatbuffer_utils.write_model(model, str(path))


def _of_onnx(path: Path) -> dict[str, str]:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return parse(next((entry.value for entry in model.metadata_props if entry.key == KEY), ""))


def _to_onnx(path: Path, text: str) -> None:
    import onnx

    from pipeline import onnx_file

    model = onnx_file.read_graph(path)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, KEY: text})
    onnx_file.write(model, path)
