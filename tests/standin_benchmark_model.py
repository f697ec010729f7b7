"""A stand-in for TensorFlow's `benchmark_model`, which no package ships: it really runs the model, by LiteRT's Python.

Its flags, the lines it prints, their order, and the file of outputs are those of the C++ sources that the runner names;
that the genuine program agrees has not been seen here. BROKEN=… makes it what an unlucky user has.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

KNOWN = {
    "graph", "num_threads", "num_runs", "min_secs", "max_secs", "warmup_runs", "warmup_min_secs", "input_layer",
    "input_layer_shape", "input_layer_value_files", "output_filepath", "report_peak_memory_footprint",
    "enable_op_profiling",
    "op_profiling_output_mode", "op_profiling_output_file",
}  # fmt: skip


def statistics(runs: list[int]) -> str:
    if not runs:
        return "count=0"
    if min(runs) == max(runs):
        return f"count={len(runs)} curr={runs[-1]}" + ("(all same)" if len(runs) > 1 else "")
    mean, spread = f"{np.mean(runs):g}", round(float(np.std(runs)))
    ends = f"first={runs[0]} curr={runs[-1]} min={min(runs)} max={max(runs)}"
    return f"count={len(runs)} {ends} avg={mean} std={spread}"


def run(interpreter: Interpreter, least: int, min_s: float, max_s: float) -> list[int]:
    head = f"Running benchmark for at least {least} iterations and at least {min_s:g} seconds"
    print(f"INFO: {head} but terminate if exceeding {max_s:g} seconds.")
    runs: list[int] = []
    start = now = time.perf_counter()
    while (len(runs) < least or now < start + min_s) and now <= start + max_s:
        before = time.perf_counter()
        interpreter.invoke()
        now = time.perf_counter()
        runs.append(int((now - before) * 1e6))
    print(f"INFO: {statistics(runs)}\n")
    return runs


def main(words: list[str]) -> int:
    flags = {"num_threads": "-1", "num_runs": "50", "min_secs": "1", "max_secs": "150", "warmup_runs": "1"}
    flags |= {"warmup_min_secs": "0.5"} | dict(word[2:].split("=", 1) for word in words)
    broken = os.environ.get("BROKEN", "")
    known = KNOWN - {"output_filepath"} if broken == "old" else KNOWN
    for name in flags.keys() - known:
        print(f"WARN: Unconsumed cmdline flags: --{name}={flags[name]}")
    print("INFO: STARTING!")
    print("INFO: Log parameter values verbosely: [0]")
    print(f"INFO: Graph: [{flags['graph']}]")
    if broken == "op":
        print("ERROR: Encountered unresolved custom op: Nonsense.", file=sys.stderr)
        print("ERROR: Failed to allocate tensors!\nERROR: Benchmarking failed.", file=sys.stderr)
        return 1
    begin = time.perf_counter()
    interpreter = Interpreter(model_path=flags["graph"], num_threads=int(flags["num_threads"]))
    print(f"INFO: Loaded model {flags['graph']}")
    print("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.")
    details = interpreter.get_input_details()
    layers, shapes = flags["input_layer"].split(","), flags["input_layer_shape"].split(":")
    for layer, shape, detail in zip(layers, shapes, details, strict=True):
        if layer != detail["name"]:
            print(f"WARN: Tensor # {detail['index']} is named {detail['name']} but flags call it {layer}")
        interpreter.resize_tensor_input(detail["index"], [int(size) for size in shape.split(",")])
    interpreter.allocate_tensors()
    init_us = int((time.perf_counter() - begin) * 1e6)
    print(f"INFO: Initialized session in {init_us / 1000:g}ms.")
    files = dict(item.split(":") for item in flags["input_layer_value_files"].split(","))
    for layer, detail in zip(layers, details, strict=True):
        like = interpreter.get_tensor(detail["index"])
        data = Path(files[layer]).read_bytes()
        interpreter.set_tensor(detail["index"], np.frombuffer(data, like.dtype).reshape(like.shape))
    longest = float(flags["max_secs"])
    warmup = run(interpreter, int(flags["warmup_runs"]), float(flags["warmup_min_secs"]), longest)
    found = run(interpreter, int(flags["num_runs"]), float(flags["min_secs"]), longest)
    if broken != "words":
        warm = (
            f"First inference: {warmup[0] if warmup else 0}, Warmup (avg): {np.mean(warmup) if warmup else -np.nan:g}"
        )
        print(f"INFO: Inference timings in us: Init: {init_us}, {warm}, Inference (avg): {np.mean(found):g}")
    print("INFO: Memory footprint delta from the start of the tool (MB): init=1.5 overall=2.25")
    if flags.get("report_peak_memory_footprint") == "true":
        print("INFO: Overall peak memory footprint (MB) via periodic monitoring: 12.5")
    if "output_filepath" in flags and "output_filepath" in known:
        outputs = [interpreter.get_tensor(detail["index"]).tobytes() for detail in interpreter.get_output_details()]
        Path(flags["output_filepath"]).write_bytes(b"".join(outputs))
    if flags.get("op_profiling_output_mode") == "csv":
        Path(flags["op_profiling_output_file"]).write_text(table(interpreter, float(np.mean(found))))
    return 0


def table(interpreter: Interpreter, mean_us: float) -> str:
    """The ops that the model really has, each given its even share of the time: Python is told no single one."""
    tensors = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    ops = [op for op in interpreter._get_ops_details() if op["op_name"] != "DELEGATE"]
    rows = []
    for number, op in enumerate(ops):
        name, ms = tensors[op["outputs"][0]].replace(",", "\t"), mean_us / 1000 / len(ops)
        share = 100 / len(ops)
        told = f"{share:g}%, {share * (number + 1):g}%, 0, 1, [{name}]:{number}"
        rows.append(f"{op['op_name']}, {ms:g}, {ms:g}, {told}")
    head = "node type, first, avg_ms, %, cdf%, mem KB, times called, name"
    line = "=" * 30
    first = f"Profiling Info for Benchmark Initialization:\n{line} Run Order {line}\n{head}\n"
    first += "AllocateTensors, 1, 1, 100%, 100%, 10, 1, AllocateTensors/0\n\n"
    runs = "\n".join(
        [f"{line} Run Order {line}", head, *rows, "", f"{line} Top by Computation Time {line}", head, *rows]
    )
    return f"{first}Operator-wise Profiling Info for Regular Benchmark Runs:\n{runs}\n\nNumber of nodes executed: 1\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
