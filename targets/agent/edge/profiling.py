"""Where the time of one inference goes, op by op: a run of its own, because watching costs time.

onnxruntime tells each node's time, and the C library of ai-edge-litert each op's, with those of XNNPACK under its
names. Where a runtime tells none, what the model's ops are is told, and why there is no time.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

from .answers import load_arrays
from .litert_profile import NoTimes, op_times
from .runtimes import OnnxModel, TfliteModel, import_runtime, onnx_options
from .sampling import typical_us
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
    return {"runs": runs, "ops": nodes(events, runs), "delegated": False}


def nodes(events: list[Json], runs: int) -> list[Json]:
    """Each node's typical time without the first run, in the order they run."""
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
        found.append({**told[key], "us": typical_us([float(us) for us in warm])})
    return found


def tflite_ops(job: Json, module: Any, sample: Json, stage: Callable[[str], None]) -> Json:
    stage("profiling")
    try:
        timed, untold = op_times(job, module, sample, repeated), ""
    except NoTimes as why:
        timed, untold = {"runs": 0, "ops": []}, str(why)
    model = TfliteModel(module)
    stage("loading the model")
    model.load(job["blob"], job["threads"], sample)
    ops = [operation for operation in graph_ops(model)[:MAX_OPS] if operation["op"] != "DELEGATE"]
    if untold:
        return {"runs": 0, "ops": ops, "untold": untold, "delegated": model.delegated()}
    by_node = {operation["node"]: operation for operation in ops}
    for operation in timed["ops"]:
        if operation["node"] in by_node:  # one that stayed with LiteRT keeps its place in the model
            operation.update({key: by_node[operation["node"]][key] for key in ("name", "dtypes")})
    return {**timed, "ops": timed["ops"][:MAX_OPS], "delegated": model.delegated()}


def graph_ops(model: TfliteModel) -> list[Json]:
    """The ops of the model as it was written, with the delegates' own in their places."""
    tensors = {detail["index"]: detail for detail in model.interpreter.get_tensor_details()}
    operations: list[Json] = getattr(model.interpreter, "_get_ops_details", list)()
    found = []
    for operation in operations:
        made = [tensors[index] for index in operation["outputs"] if index in tensors]
        found.append(
            {
                "name": made[0]["name"] if made else "",
                "op": operation["op_name"],
                "dtypes": [dtype_name(detail["dtype"]) for detail in made],
                "where": "",
                "us": None,
                "node": operation.get("index"),
            }
        )
    return found


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
