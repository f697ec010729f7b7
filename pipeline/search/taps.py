"""Values of inner tensors of a float or quantized model, by the names they have in the float one."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.plugins import load_plugin
from pipeline.records import Format

Array = np.ndarray[Any, Any]
TAPS: Mapping[Format, str] = {"tflite": "pipeline.search.taps:litert_tap", "onnx": "pipeline.search.taps:onnx_tap"}


def answers_at(format: Format, path: Path, tensors: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Real values of those of `tensors` that the model still has, for one sample."""
    tap: Callable[[Path, Sequence[str], Mapping[str, Array]], dict[str, Array]] = load_plugin(TAPS[format])
    return tap(path, tensors, inputs)


def litert_tap(path: Path, tensors: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """ai-edge-quantizer keeps the name for the quantized tensor; its scale makes it real again."""
    from pipeline.runtimes.litert import LiteRTModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "for debugging purposes only": it is what we are doing
        model = LiteRTModel(path, preserve_all_tensors=True)
    model.invoke(model.encode(inputs))
    found: dict[str, Array] = {}
    wanted = set(tensors)
    for detail in model.interpreter.get_tensor_details():
        if detail["name"] in wanted:
            try:
                array = model.interpreter.get_tensor(detail["index"])
            except ValueError:
                continue  # has no data outside of its kernel
            scale, zero_point = detail["quantization"]
            real = (array.astype(np.float32) - zero_point) * np.float32(scale) if scale else array
            found[detail["name"]] = np.asarray(real, np.float32)
    return found


def onnx_tap(path: Path, tensors: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The tensor behind its QDQ pair where it has one, else itself; graph optimisation off, so that all exist."""
    import onnx
    import onnxruntime

    from pipeline import onnx_file
    from pipeline.runtimes.onnx import OnnxModel
    from pipeline.runtimes.state import state_of

    model = onnx_file.read_graph(path)
    produced = {name for node in model.graph.node for name in node.output}
    shown = {output.name for output in model.graph.output}
    places = {}
    for tensor in tensors:
        behind = f"{tensor}_DequantizeLinear_Output"
        place = behind if behind in produced else tensor
        if place in produced or place in shown:
            places[tensor] = place
    for place in set(places.values()) - shown:
        model.graph.output.append(onnx.helper.make_tensor_value_info(place, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnx_file.session(model, options, path.parent)
    names = list(dict.fromkeys(places.values()))
    feeds = OnnxModel(path).encode(inputs) if state_of("onnx", path) else dict(inputs)
    values = dict(zip(names, session.run(names, feeds), strict=True))
    return {tensor: np.asarray(values[place], np.float32) for tensor, place in places.items()}
