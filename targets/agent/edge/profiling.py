"""Where the time of one inference goes, op by op: a run of its own, because watching costs time.

onnxruntime tells each node's time. LiteRT's Python module tells none, so of a .tflite only what runs where is told.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

from .answers import load_arrays
from .runtimes import OnnxModel, TfliteModel, import_runtime, onnx_options
from .wire import Json

RUNS = 10
LONGEST_S = 20.0  # of slow models fewer runs say the same
MAX_OPS = 4000  # in one reply
_KERNEL = "_kernel_time"


def profile(job: Json, stage: Callable[[str], None]) -> Json:
    stage("importing the runtime")
    distribution, version, module = import_runtime(job["format"])
    sample = load_arrays(job["inputs"])
    found = (
        onnx_profile(job, module, sample, stage) if job["format"] == "onnx" else tflite_ops(job, module, sample, stage)
    )
    return {"runtime": distribution, "runtime_version": version, "delegate": "", **found}


def onnx_profile(job: Json, module: Any, sample: Json, stage: Callable[[str], None]) -> Json:
    with tempfile.TemporaryDirectory() as folder:
        options = onnx_options(module, job["threads"])
        options.enable_profiling = True
        options.profile_file_prefix = folder + "/profile"
        model = OnnxModel(module)
        stage("loading the model")
        model.load(job["blob"], job["threads"], sample, options)
        stage("profiling")
        runs = repeated(model.run)
        events = json.loads(Path(model.session.end_profiling()).read_text(encoding="utf-8"))
    return {"runs": runs, "ops": nodes(events, runs), "timed": True, "delegated": False}


def nodes(events: list[Json], runs: int) -> list[Json]:
    """Each node's mean time without the first run, in the order they run."""
    times: dict[str, list[int]] = {}
    told: dict[str, Json] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            arguments = event["args"]
            key = str(arguments.get("node_index", "")) + event["name"]
            times.setdefault(key, []).append(event["dur"])
            told[key] = {
                "name": event["name"][: -len(_KERNEL)],
                "op": arguments["op_name"],
                "dtypes": [next(iter(shape), "") for shape in arguments.get("output_type_shape", [])],
                "where": arguments.get("provider", "").replace("ExecutionProvider", ""),
            }
    found = []
    for key, durations in list(times.items())[:MAX_OPS]:
        warm = durations[len(durations) // max(runs, 1) :] or durations
        found.append({**told[key], "us": sum(warm) / max(1, runs - 1)})
    return found


def tflite_ops(job: Json, module: Any, sample: Json, stage: Callable[[str], None]) -> Json:
    model = TfliteModel(module)
    stage("loading the model")
    model.load(job["blob"], job["threads"], sample)
    runs = repeated(model.run)
    tensors = {detail["index"]: detail for detail in model.interpreter.get_tensor_details()}
    delegated = model.delegated()
    operations: list[Json] = getattr(model.interpreter, "_get_ops_details", list)()
    found = []
    for operation in operations[:MAX_OPS]:
        if operation["op_name"] == "DELEGATE":
            continue
        made = [tensors[index] for index in operation["outputs"] if index in tensors]
        found.append(
            {
                "name": made[0]["name"] if made else "",
                "op": operation["op_name"],
                "dtypes": [dtype_name(detail["dtype"]) for detail in made],
                "where": "",
                "us": None,
            }
        )
    return {"runs": runs, "ops": found, "timed": False, "delegated": delegated}


def dtype_name(dtype: Any) -> str:
    return str(getattr(dtype, "__name__", dtype))


def repeated(run: Callable[[], object]) -> int:
    """Run up to RUNS times, fewer when that takes too long; how often."""
    begun = time.monotonic()
    done = 0
    while done < RUNS and (done < 2 or time.monotonic() - begun < LONGEST_S):
        run()
        done += 1
    return done
