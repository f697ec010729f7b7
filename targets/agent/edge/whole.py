"""The whole way from a sample's bytes to the model's real-valued answer, each part timed, in a child of its own."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any, Callable

from .answers import compare, load_arrays
from .preparing import STEPS, NoPillow, decode, encoded
from .runtimes import OnnxModel, TfliteModel, import_runtime
from .wire import Json

RUNS = 30
LONGEST_S = 10.0  # of slow pipelines fewer runs say the same


class Watch:
    """Times of the parts of a run, in the order they first came."""

    def __init__(self) -> None:
        self.times: dict[str, list[int]] = {}
        self.missing: dict[str, str] = {}

    def part(self, name: str, work: Callable[[], Any], instead: Callable[[], Any]) -> Any:
        """What `work` gives, timed; what `instead` gives, untimed, where Pillow is missing."""
        start = time.perf_counter_ns()
        try:
            made = work()
        except NoPillow as fault:
            self.times.setdefault(name, [])
            self.missing[name] = str(fault)
            return instead()
        self.times.setdefault(name, []).append(time.perf_counter_ns() - start)
        return made


def pipeline(job: Json, stage: Callable[[str], None]) -> Json:
    stage("importing the runtime")
    distribution, version, module = import_runtime(job["format"])
    sample, raw, given = load_arrays(job["inputs"]), Path(job["raw"]).read_bytes(), load_arrays(job["given"])
    onnx = job["format"] == "onnx"
    model: Any = OnnxModel(module) if onnx else TfliteModel(module)
    stage("loading the model")
    model.load(job["blob"], job["threads"], sample)
    infer = inference(model, onnx)
    watch, told = Watch(), job["pipeline"]
    stage("running the whole pipeline")
    begun, runs, prepared = time.monotonic(), 0, None
    while runs < RUNS and (runs < 2 or time.monotonic() - begun < LONGEST_S):
        prepared = run_once(watch, told, raw, given, infer)
        runs += 1
    name, golden = next(iter(sample.items()))
    apart, finite = compare([([name], prepared)], {name: golden})
    return {
        "runtime": distribution, "runtime_version": version, "delegate": "", "delegated": model.delegated(),
        "runs": runs, "input_steps": apart if finite else None,
        "parts": [
            {"name": part, "us": warm_us(times), "missing": watch.missing.get(part, "")}
            for part, times in watch.times.items()
        ],
    }  # fmt: skip


def run_once(watch: Watch, told: Json, raw: bytes, given: Json, infer: Callable[[Any], Any]) -> Any:
    if told["kind"]:
        array = watch.part("decode", lambda: decode(told["kind"], raw), lambda: given["decode"])
    else:
        array = given["decode"]
    for number, described in enumerate(told["steps"]):
        ((name, options),) = described.items()
        array = watch.part(name, part_of(name, array, options), given_after(given, number))
    kept = array  # the lambda below must not see what it makes
    prepared = watch.part("model input", lambda: encoded(kept, told["tensor"]), lambda: None)
    outputs = watch.part("inference", lambda: infer(prepared), lambda: None)
    watch.part("outputs", lambda: real_values(outputs, told["outputs"]), lambda: None)
    return prepared


def given_after(given: Json, number: int) -> Callable[[], Any]:
    return lambda: given["step%d" % number]


def part_of(name: str, array: Any, options: Json) -> Callable[[], Any]:
    return lambda: STEPS[name](array, **options)


def inference(model: Any, onnx: bool) -> Callable[[Any], Any]:
    """From a prepared array to raw outputs: setting the input and reading the outputs belong to it."""
    if onnx:
        session = model.session
        (tensor,) = session.get_inputs()
        return lambda array: session.run(None, {tensor.name: array})
    interpreter = model.interpreter
    (detail,) = interpreter.get_input_details()
    indices = [output["index"] for output in interpreter.get_output_details()]

    def run(array: Any) -> Any:
        interpreter.set_tensor(detail["index"], array)
        model.reset()
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in indices]

    return run


def real_values(arrays: list[Any], tensors: list[Json]) -> list[Any]:
    import numpy as np

    return [
        (array.astype(np.float32) - tensor["zero_point"]) * np.float32(tensor["scale"]) if tensor["scale"] else array
        for array, tensor in zip(arrays, tensors)  # noqa: B905
    ]


def warm_us(times: list[int]) -> float | None:
    """The median without the first run, in microseconds."""
    return statistics.median(times[1:] or times) / 1000 if times else None
