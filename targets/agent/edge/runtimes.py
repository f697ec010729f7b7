"""A model in a runtime, as a benchmark's child uses it: load, set inputs, run, read outputs."""

from __future__ import annotations

import importlib
import re
import sys
from typing import Any, Callable

from .facts import MODULES, RUNTIMES, distributions, parse_cpuinfo, saturates_int8
from .files import read_text
from .wire import Json, Refused


def import_runtime(model_format: str) -> tuple[str, str, Any]:
    """The first runtime of the format that imports: distribution, version, module."""
    troubles = []
    for name, version in distributions(RUNTIMES[model_format]).items():
        try:
            return name, version, importlib.import_module(MODULES[name])
        except Exception as fault:  # a wheel for another numpy raises what it likes
            troubles.append("%s %s cannot be imported (%s: %s)" % (name, version, type(fault).__name__, fault))
    found = ", ".join("%s %s" % pair for pair in distributions(MODULES).items()) or "none"
    detail = "; ".join(troubles) or "none of %s is installed" % " or ".join(RUNTIMES[model_format])
    message = "no runtime for %s: %s; found: %s" % (model_format, detail, found)
    raise Refused("no-runtime", message, executable=sys.executable)


def pick(arrays: Json, names: list[str], count: int, what: str) -> Any:
    """The array called by one of the names; the only array when the model has only one such tensor."""
    for name in names:
        if name in arrays:
            return arrays[name]
    if count == 1 and len(arrays) == 1:
        return next(iter(arrays.values()))
    raise Refused("input", "the sample has no array for %s %s; it has %s" % (what, names[0], sorted(arrays)))


def plain_name(name: str) -> str:
    """The name of a TensorFlow Lite tensor without what converters add to it."""
    return re.sub(r"^[a-z]+_default_|:\d+$", "", name)


def cast(array: Any, dtype: Any, name: str) -> Any:
    """The array in the tensor's dtype; a change of kind (float to integer) is refused, it would be a guess."""
    import numpy as np

    if not np.can_cast(array.dtype, dtype, casting="same_kind"):
        raise Refused("input", "%s is %s, the sample's array is %s" % (name, np.dtype(dtype), array.dtype))
    return np.asarray(array, dtype=dtype, order="C")  # `ascontiguousarray` makes a number a vector


class TfliteModel:
    """A .tflite model in ai-edge-litert or tflite-runtime."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def load(self, path: str, threads: int, sample: Json) -> None:
        self.arguments = path, threads, sample
        self.start()

    def start(self) -> None:
        path, threads, sample = self.arguments
        self.interpreter = self.module.Interpreter(model_path=path, num_threads=threads)
        details = self.interpreter.get_input_details()
        names = self.names("inputs", details)
        feeds = []
        for detail in details:
            array = pick(sample, names[detail["index"]], len(details), "input")
            array = cast(array, detail["dtype"], names[detail["index"]][0])
            if tuple(detail["shape"]) != array.shape:
                self.interpreter.resize_tensor_input(detail["index"], array.shape)
            feeds.append((detail["index"], array))
        self.interpreter.allocate_tensors()
        for index, array in feeds:
            self.interpreter.set_tensor(index, array)
        self.run: Callable[[], object] = self.interpreter.invoke

    def names(self, side: str, details: list[Json]) -> dict[int, list[str]]:
        """Tensor index to the names a sample may use: the signature's, the tensor's, and that without decoration."""
        names = {d["index"]: [d["name"], plain_name(d["name"])] for d in details}
        full: dict[str, Any] = getattr(self.interpreter, "_get_full_signature_list", dict)() or {}
        for signature in full.values():
            if set(signature[side].values()) == set(names):  # of the main subgraph, the one `invoke` runs
                for name, index in signature[side].items():
                    names[index].insert(0, name)
                break
        return names

    def reset(self) -> None:
        self.interpreter.reset_all_variables()  # does nothing when the model has no state

    def outputs(self) -> list[tuple[list[str], Any]]:
        if self.has_resources():
            self.start()
            self.run()
        details = self.interpreter.get_output_details()
        names = self.names("outputs", details)
        return [(names[d["index"]], self.interpreter.get_tensor(d["index"])) for d in details]

    def operations(self) -> set[str]:
        details: list[Json] = getattr(self.interpreter, "_get_ops_details", list)()
        return {operation["op_name"] for operation in details}

    def has_resources(self) -> bool:
        """Whether the model's state is in resource variables, whose first values `reset` does not bring back."""
        return "VAR_HANDLE" in self.operations()

    def delegated(self) -> bool:
        return "DELEGATE" in self.operations()


def exact_int8(cpuinfo: str = "") -> dict[str, str]:
    """onnxruntime's setting for exact int8 products where the fast ones are not; `cpuinfo`: of another device.

    Left out elsewhere: the setting makes every x86 CPU slow, also one that is exact without it.
    """
    features = parse_cpuinfo(cpuinfo or read_text("/proc/cpuinfo"))["features"]
    return {"session.x64quantprecision": "1"} if saturates_int8(features) else {}


def onnx_options(module: Any, threads: int) -> Any:
    """The session options of a benchmark, and of the host's own runs: both must compute alike."""
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in exact_int8().items():
        options.add_session_config_entry(key, value)
    return options


class OnnxModel:
    """An .onnx model in onnxruntime, on its CPU provider."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def load(self, path: str, threads: int, sample: Json, options: Any = None) -> None:
        options = options or onnx_options(self.module, threads)
        self.session = self.module.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = self.session.get_inputs()
        feed = {tensor.name: pick(sample, [tensor.name], len(inputs), "input") for tensor in inputs}
        self.values: list[Any] = []

        def run() -> None:
            self.values = self.session.run(None, feed)

        self.run = run

    def reset(self) -> None:
        pass  # ONNX models hold no state between runs

    def outputs(self) -> list[tuple[list[str], Any]]:
        return [([tensor.name], value) for tensor, value in zip(self.session.get_outputs(), self.values)]  # noqa: B905

    def delegated(self) -> bool:
        return False
