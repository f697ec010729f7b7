"""One inference in our C programs, against the Python agent on the same model: at most 1.05 times, and half a µs.

Each side is one benchmark process with the same settings, in turns; the value is its median warm inference. The float
model is one addition, so nearly all of it is what surrounds the call; the example's int8 layer shows what is left of
that in a model that computes something. `--pairs` is how often each process is started.
"""

import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.pairs import ROOT, Row, at_most, in_turns, main, middle
from targets.agent.edge.answers import load_arrays
from targets.agent.edge.benchmark import records_of
from targets.agent.edge.runtimes import exact_int8
from targets.agent.pack import packed
from targets.native import glibc, tensors
from targets.records import BenchRequest
from targets.runners.native import rule

sys.path.insert(0, str(ROOT / "tests"))  # the small models are those of the tests

from int8_models import branching_onnx_bundle, int8_tflite_bundle
from tiny_models import Bundle, onnx_bundle, tflite_bundle

_MODELS = {
    "LiteRT, one addition": tflite_bundle,
    "ONNX Runtime, one addition": onnx_bundle,
    "LiteRT, an int8 layer": int8_tflite_bundle,
    "ONNX Runtime, an int8 network": branching_onnx_bundle,
}
_SETTINGS: Mapping[str, Any] = {"threads": 1, "warm_max_s": 1.0, "warm_min_samples": 50, "warm_max_samples": 20_000}
_NOISE = 1.05  # two medians of the same program differ by this much here
_BINDING_US = 0.5  # LiteRT's C API binds the buffers at every call, its Python interpreter does not; no model notices


def rows(pairs: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, make) in enumerate(_MODELS.items()):
            bundle = make(Path(folder) / str(number))
            found = in_turns({"ours": lambda b=bundle: _native_us(b), "agent": lambda b=bundle: _agent_us(b)}, pairs)
            ours, agent = middle(found["ours"]), middle(found["agent"])
            yield at_most(name, ours, "µs", _NOISE * agent + _BINDING_US, agent)


def _native_us(bundle: Bundle) -> float:
    carried = glibc.carried(bundle.format, platform.machine())
    request: BenchRequest = bundle.request(**_SETTINGS)
    sample = bundle.model.with_name("inputs.tensors")
    sample.write_bytes(tensors.encode(load_arrays(str(bundle.inputs))))
    program, library = carried.files[carried.program], carried.files[carried.library]
    argv = [str(program), f"library={library}", f"version={carried.version}", f"model={bundle.model}"]
    argv += [f"inputs={sample}", f"outputs={bundle.model}.outputs", *rule(request)]
    if bundle.format == "onnx":
        argv += [f"config={key}={value}" for key, value in exact_int8().items()]
    return _median_us(subprocess.run(argv, capture_output=True, check=True).stdout)


def _agent_us(bundle: Bundle) -> float:
    files = {"blob": bundle.model, "inputs": bundle.inputs, "expected": bundle.expected}
    job = {"format": bundle.format, **{key: str(path) for key, path in files.items()}, **_SETTINGS}
    program = bundle.model.with_name("agent.pyz")
    program.write_bytes(packed())
    argv = [sys.executable, "-I", str(program), "--bench"]
    return _median_us(subprocess.run(argv, input=json.dumps(job).encode(), capture_output=True, check=True).stdout)


def _median_us(output: bytes) -> float:
    (result,) = (record["result"] for record in records_of(output) if "result" in record)
    return median(result["warm_ns"]) / 1e3


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=5)
