"""The time of each op of a .tflite, from the profiler in the C library of ai-edge-litert: its Python module has none.

All of it runs in a process forked off for it, since a library with other prototypes than those of 2.1.1 to 2.3 may end
the process: then times are missing, and nothing else is.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
from pathlib import Path
from typing import Any, Callable

from .runtimes import cast, pick, plain_name
from .sampling import typical_us
from .wire import Json, Refused

CPU, LOCK_WRITE = 1, 1
MAX_RANK = 8
# LiteRT's number of a type, which is TensorFlow Lite's.
DTYPES = {
    1: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float16", 11: "float64",
    13: "uint64", 16: "uint32", 17: "uint16",
}  # fmt: skip
WHOLE, OPERATOR, DELEGATE_INSIDE, DELEGATE_OPERATOR = 1, 2, 4, 8  # kinds of events
INVOKE = "Invoke"  # the event that begins a run
BUILT_IN, DELEGATE = "built-in", "XNNPACK"


class NoTimes(Exception):
    """Why this runtime tells no time of single ops."""


class Layout(ctypes.Structure):
    # The rank is in the first seven bits, and whether there are strides in the eighth.
    _fields_ = [
        ("rank", ctypes.c_uint32),
        ("dims", ctypes.c_int32 * MAX_RANK),
        ("strides", ctypes.c_uint32 * MAX_RANK),
    ]


class RankedType(ctypes.Structure):
    _fields_ = [("element_type", ctypes.c_int), ("layout", Layout)]


class Memory(ctypes.Structure):
    _fields_ = [("words", ctypes.c_uint64 * 3)]


class Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("before", Memory),
        ("after", Memory),
        ("node", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


class Library:
    """The C functions of libLiteRt.so, by their names without the prefix; one that fails raises NoTimes."""

    def __init__(self, module: Any) -> None:
        path = Path(str(module.__file__)).parent / "libLiteRt.so"
        if not path.is_file():
            raise NoTimes("this runtime tells no time of single ops; ai-edge-litert 2.1.1 and later do")
        try:
            self.loaded = ctypes.CDLL(str(path))
        except OSError as fault:
            raise NoTimes("its C library cannot be loaded (%s)" % fault) from None

    def call(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self.loaded, "LiteRt" + name)
        except AttributeError:
            raise NoTimes("this ai-edge-litert has no %s; 2.1.1 and later do" % name) from None
        function.restype = ctypes.c_int
        if status := function(*arguments):
            raise NoTimes("LiteRT's C library says status %d to %s" % (status, name))

    def made(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """The handle that the function gives as its last argument."""
        handle = ctypes.c_void_p()
        self.call(name, *arguments, ctypes.byref(handle))
        return handle

    def count(self, name: str, *arguments: Any) -> int:
        found = ctypes.c_size_t()
        self.call(name, *arguments, ctypes.byref(found))
        return found.value

    def text(self, name: str, *arguments: Any) -> str:
        found = ctypes.c_char_p()
        self.call(name, *arguments, ctypes.byref(found))
        return (found.value or b"").decode("utf-8", "replace")


class ProfiledModel:
    """A model compiled with LiteRT's profiler, its inputs filled with the sample."""

    def __init__(self, module: Any, path: str, threads: int, sample: Json) -> None:
        self.library = lib = Library(module)
        self.environment = lib.made("CreateEnvironment", 0, None)
        self.model = lib.made("CreateModelFromFile", self.environment, path.encode())
        self.signature, self.index = self.main_signature()
        options = lib.made("CreateOptions")
        lib.call("SetOptionsHardwareAccelerators", options, CPU)
        self.set_option(options, b"xnnpack", "num_threads = %d\n" % threads)
        self.set_option(options, b"runtime_options_string", "enable_profiling = true\n")
        self.compiled = lib.made("CreateCompiledModel", self.environment, self.model, options)
        self.inputs, self.outputs = self.input_buffers(sample), self.output_buffers()
        self.profiler = lib.made("CompiledModelGetProfiler", self.compiled)
        if not self.profiler:
            raise NoTimes("this LiteRT makes no profile")

    def main_signature(self) -> tuple[Any, ctypes.c_size_t]:
        """The signature of the subgraph that `invoke` runs; the C library runs nothing else."""
        lib = self.library
        main = lib.made(
            "GetModelSubgraph", self.model, ctypes.c_size_t(lib.count("GetMainModelSubgraphIndex", self.model))
        )
        for number in range(lib.count("GetNumModelSignatures", self.model)):
            signature = lib.made("GetModelSignature", self.model, ctypes.c_size_t(number))
            if lib.made("GetSignatureSubgraph", signature).value == main.value:
                return signature, ctypes.c_size_t(number)
        raise NoTimes("no signature of the model runs its main subgraph, and without one LiteRT's C library cannot")

    def set_option(self, options: Any, part: bytes, toml: str) -> None:
        libc = ctypes.CDLL(None)
        libc.strdup.restype = ctypes.c_void_p
        payload = ctypes.c_void_p(libc.strdup(toml.encode()))  # freed by LiteRT
        free = ctypes.cast(libc.free, ctypes.c_void_p)
        self.library.call("AddOpaqueOptions", options, self.library.made("CreateOpaqueOptions", part, payload, free))

    def buffer(self, side: str, number: int, kind: RankedType) -> ctypes.c_void_p:
        lib, place = self.library, ctypes.c_size_t(number)
        needs = lib.made("GetCompiledModel%sBufferRequirements" % side, self.compiled, self.index, place)
        return lib.made("CreateManagedTensorBufferFromRequirements", self.environment, ctypes.byref(kind), needs)

    def input_buffers(self, sample: Json) -> Any:
        """The buffers, filled; of a model resized to the shapes of the sample."""
        lib, count = self.library, self.library.count("GetNumSignatureInputs", self.signature)
        arrays, kinds = [], []
        for number in range(count):
            place, kind = ctypes.c_size_t(number), RankedType()
            tensor = lib.made("GetSignatureInputTensorByIndex", self.signature, place)
            lib.call("GetRankedTensorType", tensor, ctypes.byref(kind))
            own = lib.text("GetTensorName", tensor)
            names = [lib.text("GetSignatureInputName", self.signature, place), own, plain_name(own)]
            array = cast(pick(sample, names, count, "input"), DTYPES.get(kind.element_type, "float32"), names[0])
            dims = (ctypes.c_int * max(1, array.ndim))(*array.shape)
            rank = ctypes.c_size_t(array.ndim)
            lib.call("CompiledModelResizeInputTensorNonStrict", self.compiled, self.index, place, dims, rank)
            arrays.append(array)
            kinds.append(kind)
        buffers = []
        for number, (array, kind) in enumerate(zip(arrays, kinds)):  # noqa: B905
            place = ctypes.c_size_t(number)
            lib.call("GetCompiledModelInputTensorLayout", self.compiled, self.index, place, ctypes.byref(kind.layout))
            buffer = self.buffer("Input", number, kind)
            memory = ctypes.c_void_p()
            lib.call("LockTensorBuffer", buffer, ctypes.byref(memory), LOCK_WRITE)
            ctypes.memmove(memory, array.tobytes(), array.nbytes)
            lib.call("UnlockTensorBuffer", buffer)
            buffers.append(buffer.value)
        return (ctypes.c_void_p * max(1, count))(*buffers), ctypes.c_size_t(count)

    def output_buffers(self) -> Any:
        lib, count = self.library, self.library.count("GetNumSignatureOutputs", self.signature)
        layouts, size = (Layout * max(1, count))(), ctypes.c_size_t(count)
        lib.call("GetCompiledModelOutputTensorLayouts", self.compiled, self.index, size, layouts, ctypes.c_bool(True))
        buffers = []
        for number in range(count):
            kind = RankedType()
            tensor = lib.made("GetSignatureOutputTensorByIndex", self.signature, ctypes.c_size_t(number))
            lib.call("GetRankedTensorType", tensor, ctypes.byref(kind))
            kind.layout = layouts[number]
            buffers.append(self.buffer("Output", number, kind).value)
        return (ctypes.c_void_p * max(1, count))(*buffers), size

    def run(self) -> None:
        (inputs, taken), (outputs, given) = self.inputs, self.outputs
        self.library.call("RunCompiledModel", self.compiled, self.index, taken, inputs, given, outputs)

    def events(self) -> list[Event]:
        count = ctypes.c_int()
        self.library.call("GetNumProfilerEvents", self.profiler, ctypes.byref(count))
        found = (Event * max(1, count.value))()
        self.library.call("GetProfilerEvents", self.profiler, count, found)
        return list(found)[: count.value]


def op_times(job: Json, module: Any, sample: Json, repeated: Callable[[Callable[[], object]], int]) -> Json:
    """`runs`, and `ops` in the order they run; raises NoTimes where the runtime tells none."""

    def profiled() -> Json:
        model = ProfiledModel(module, job["blob"], job["threads"], sample)
        model.run()  # it makes XNNPACK's weights and the threads: no time of an op
        model.library.call("StartProfiler", model.profiler)
        runs = repeated(model.run)
        model.library.call("StopProfiler", model.profiler)
        return {"runs": runs, "ops": in_order(model.events())}

    return forked(profiled)


def in_order(events: list[Any]) -> list[Json]:
    """Each op's typical time, from the events of all runs, in the order they run."""
    ops: list[Json] = []
    times: list[list[float]] = []
    place = 0
    for event in events:
        tag = (event.tag or b"").decode("utf-8", "replace")
        if event.kind == WHOLE and tag == INVOKE:
            place = 0
        if event.kind not in (OPERATOR, DELEGATE_INSIDE, DELEGATE_OPERATOR):
            continue
        if place == len(ops):
            ops.append(described(tag, event))
            times.append([])
        times[place].append(float(event.elapsed_us))
        place += 1
    return [{**operation, "us": typical_us(own)} for operation, own in zip(ops, times)]  # noqa: B905


def described(tag: str, event: Any) -> Json:
    """`Convolution (NHWC, QS8, QC8W) IGEMM` of XNNPACK, or `CUMSUM` of LiteRT's own kernels, as a wire op."""
    if event.kind == OPERATOR:
        return {"name": "", "op": tag, "dtypes": [], "where": BUILT_IN, "node": int(event.node)}
    types = re.search(r"\(([^)]*)\)", tag)
    dtype = xnnpack_dtype(types.group(1).replace(",", " ").split()) if types else ""
    op = tag.split(" (")[0] + " DWConv" * tag.endswith(" DWConv")  # of one name with the others, and of another speed
    return {"name": tag, "op": op, "dtypes": [dtype] if dtype else [], "where": DELEGATE, "node": None}


def xnnpack_dtype(words: list[str]) -> str:
    """What XNNPACK's names of types say of the computing: q is quantized, c per channel, d while running, w weights."""
    kinds = [word[1:] if word.startswith("P") else word for word in words if not word.endswith("W")]
    if any(kind.startswith("QD8") for kind in kinds):
        return "int8, dynamic"
    if any(kind.startswith(("QS8", "QC8")) for kind in kinds):
        return "int8"
    if any(kind.startswith("QU8") for kind in kinds):
        return "uint8"
    plain = {"F32": "float32", "F16": "float16", "S32": "int32"}
    return next((plain[kind] for kind in kinds if kind in plain), "")


def forked(work: Callable[[], Json]) -> Json:
    """What `work` gives, computed in a process of its own; raises NoTimes where that says so, or dies."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a fork forgets it
            try:
                told: Json = {"ok": work()}
            except NoTimes as why:
                told = {"why": str(why)}
            except Refused as refusal:
                told = {"why": refusal.error["message"]}
            with os.fdopen(writing, "wb") as stream:
                stream.write(json.dumps(told).encode())
        finally:
            os._exit(0)  # nothing of the parent's is to be ended or flushed twice
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        output = stream.read()
    status = os.waitpid(child, 0)[1]
    if not output:
        how = "signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else "no word"
        raise NoTimes("LiteRT's profiler ended with %s" % how)
    answer: Json = json.loads(output)
    if "why" in answer:
        raise NoTimes(answer["why"])
    found: Json = answer["ok"]
    return found
