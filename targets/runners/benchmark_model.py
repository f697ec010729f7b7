"""TensorFlow's own `benchmark_model`, of which the user gives the path as `libraries:`; it needs nothing beside itself.

It tells no run's own time, only what a process's runs were on average: so it is started several times, and each process
gives one sample. Its first run, of a process of its own, gives the answer, since later ones may have a state.
Source: tensorflow/lite/tools/benchmark, README.md, benchmark_model.cc and benchmark_tflite_model.cc, and
tensorflow/core/util/stats_calculator.h (its lines of statistics). Old ones have no `--output_filepath`.
"""

import hashlib
import re
import struct
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from targets.agent.edge import sampling
from targets.agent.edge.answers import compare, load_arrays
from targets.agent.edge.runtimes import TfliteModel, import_runtime
from targets.agent.edge.wire import Refused
from targets.errors import AgentFailed, InputError, NoRuntime
from targets.native.vendor import MACHINES
from targets.records import BenchRequest, TargetSpec
from targets.runner import Finished, Shell

_PROCESSES = 10  # samples; a start costs what loading the model costs
_CANNOT_RUN = (126, 127)  # a shell's words for a program that is none here
_KILLED = 137
_LAST_LINES = 8
_PROFILED_RUNS = 10  # as the agent profiles
_PROFILE_BYTES = 8 << 20  # a row has some 100 bytes, and a large model 10 000 nodes
_WHERE = "TensorFlow's instructions: tensorflow/lite/tools/benchmark/README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one process said of itself, in µs and MB."""

    init_us: float
    first_us: float
    warmup_us: float  # mean
    warmup_runs: int
    mean_us: float
    runs: int
    fastest_us: float
    slowest_us: float
    peak_mb: float | None
    xnnpack: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Io:
    """A model's inputs as it wants them, and its outputs as this host makes them."""

    inputs: list["np.ndarray[Any, Any]"]
    outputs: list[tuple[list[str], "np.ndarray[Any, Any]"]]
    dtypes: Mapping[str, list[str]]  # of every tensor, by its name


class BenchmarkModelRunner:
    """Brings the user's program, runs it, reads what it prints, and compares its outputs by the agent's rules."""

    def __init__(self, spec: TargetSpec) -> None:
        if not spec.libraries:
            hint = f"libraries: path/to/benchmark_model, built for the device; {_WHERE}"
            raise InputError(f"{spec.name}: the runner `benchmark_model` needs the path of that program", hint=hint)
        self._program = Path(spec.libraries).expanduser()

    def runtimes(self, shell: Shell) -> Mapping[str, str]:
        """Raises InputError when there is no such program, or it is for another processor."""
        self._check(shell)
        return {"ai-edge-litert": "unknown"}  # it does not say its version anywhere

    def bench(
        self, shell: Shell, request: BenchRequest, files: Mapping[str, Path], deadline_s: float
    ) -> Mapping[str, Any]:
        """One benchmark; its answer is compared here. Raises what `targets.runner.Runner.bench` names."""
        self._check(shell)
        if request.format != "tflite":
            raise NoRuntime(f"{shell.name}: benchmark_model runs .tflite models only", hint="set `runner: native`")
        if request.pause_s or request.governor:
            raise InputError(f"{shell.name}: benchmark_model makes no pauses of ours and sets no governor")
        end = time.monotonic() + deadline_s
        try:
            io = _io(files["blob"], load_arrays(str(files["inputs"])))
            argv = [*self._command(shell, request, files["blob"]), *_given(shell, io.inputs)]
            outputs = f"{shell.folder}/outputs"
            once = ["--warmup_runs=0", "--warmup_min_secs=0", "--num_runs=1", "--min_secs=0"]
            first = _run(shell, [*argv, *once, f"--output_filepath={outputs}"], end)
            steps, finite = compare(_answer(shell, outputs, io), load_arrays(str(files["expected"])))
        except Refused as refusal:
            raise InputError(f"{shell.name}: {refusal.error['message']}") from refusal
        told = [_run(shell, [*argv, *flags], end) for flags in _pace(request)]
        return {
            "runtime": "ai-edge-litert",
            "runtime_version": "unknown",
            "delegate": "XNNPACK" if first.xnnpack else "",
            "load_ns": round(first.init_us * 1000),
            "first_ns": round(first.mean_us * 1000),
            "warmup_ns": [round(each.warmup_us * 1000) for each in told],
            "warm_ns": [round(each.mean_us * 1000) for each in told],
            "load_peak_rss_bytes": None,
            "peak_rss_bytes": round(told[0].peak_mb * (1 << 20)) if told[0].peak_mb else None,
            "max_steps": steps,
            "finite": finite,
            "conditions": {**self._conditions(), **_spread(told)},
        }

    def profile(
        self, shell: Shell, request: BenchRequest, files: Mapping[str, Path], deadline_s: float
    ) -> Mapping[str, Any]:
        """Where the time goes, op by op, from the CSV that it writes; read by `targets.wire.decode_profile`."""
        self._check(shell)
        if request.format != "tflite":
            raise NoRuntime(f"{shell.name}: benchmark_model runs .tflite models only", hint="set `runner: native`")
        end = time.monotonic() + deadline_s
        try:
            io = _io(files["blob"], load_arrays(str(files["inputs"])))
        except Refused as refusal:
            raise InputError(f"{shell.name}: {refusal.error['message']}") from refusal
        table = f"{shell.folder}/profile.csv"
        flags = [f"--num_runs={_PROFILED_RUNS}", "--min_secs=0", "--enable_op_profiling=true"]
        flags += ["--op_profiling_output_mode=csv", f"--op_profiling_output_file={table}"]
        told = _run(shell, [*self._command(shell, request, files["blob"]), *_given(shell, io.inputs), *flags], end)
        ops = parse_profile(shell.fetch(table, _PROFILE_BYTES).decode("utf-8", "replace"))
        who = {"runtime": "ai-edge-litert", "runtime_version": "unknown", "delegate": "XNNPACK" if told.xnnpack else ""}
        return {**who, "runs": told.runs, "ops": [{**op, "dtypes": io.dtypes.get(str(op["name"]), [])} for op in ops]}

    def _check(self, shell: Shell) -> None:
        try:
            with self._program.open("rb") as file:
                head = file.read(20)
        except OSError as fault:
            raise InputError(f"{shell.name}: {self._program} cannot be read: {fault.strerror}", hint=_WHERE) from fault
        wanted = MACHINES[shell.arch][0] if shell.arch in MACHINES else None
        if head[:4] == b"\x7fELF" and len(head) == 20 and struct.unpack_from("<H", head, 18)[0] != wanted:
            message = f"{shell.name}: {self._program} is not for {shell.arch}"
            raise InputError(message, hint=f"build it for this device; {_WHERE}")

    def _command(self, shell: Shell, request: BenchRequest, model: Path) -> list[str]:
        folder = shell.install({"benchmark_model": self._program})
        mask = f"{sum(1 << cpu for cpu in set(request.cpus)):x}"
        argv = ["taskset", mask] if request.cpus else []
        argv += [f"{folder}/benchmark_model", f"--graph={shell.send(model, request.blob)}"]
        return [*argv, f"--num_threads={request.threads}"]

    def _conditions(self) -> dict[str, str]:
        digest = hashlib.sha256(self._program.read_bytes()).hexdigest()
        return {"runner": f"TensorFlow's benchmark_model ({self._program.name}, sha256 {digest[:12]}), in the shell"}


def _pace(request: BenchRequest) -> list[list[str]]:
    """The flags of each process: together they take the time that was asked for."""
    processes = max(1, min(_PROCESSES, request.warm_max_samples))
    warm_s = request.warm_max_s / processes
    flags = ["--warmup_runs=1", f"--warmup_min_secs={warm_s * sampling.WARMUP_SHARE:g}", "--num_runs=1"]
    flags += [f"--min_secs={warm_s:g}", f"--max_secs={max(warm_s, 0.001):g}"]
    # It has a thread that looks every 50 ms: in one process, which is no sample more or less than the others.
    return [[*flags, "--report_peak_memory_footprint=true"], *[flags] * (processes - 1)]


def _spread(told: Sequence[Told]) -> dict[str, str]:
    runs = [each.runs for each in told]
    return {
        "samples": f"each the mean of {min(runs)} to {max(runs)} runs in a process of its own",
        "fastest_run_ms": f"{min(each.fastest_us for each in told) / 1000:.3f}",
        "slowest_run_ms": f"{max(each.slowest_us for each in told) / 1000:.3f}",
    }


def _io(model: Path, sample: Mapping[str, Any]) -> _Io:
    """By a run on this host, under the agent's rules; raises Refused when the sample does not fit."""
    loaded = TfliteModel(import_runtime("tflite")[2])
    loaded.load(str(model), 1, dict(sample))
    loaded.run()
    details = loaded.interpreter.get_input_details()
    inputs = [loaded.interpreter.get_tensor(detail["index"]) for detail in details]
    tensors = loaded.interpreter.get_tensor_details()
    dtypes = {detail["name"]: [np.dtype(detail["dtype"]).name] for detail in tensors if detail["name"]}
    return _Io(inputs=inputs, outputs=loaded.outputs(), dtypes=dtypes)


def _given(shell: Shell, inputs: Sequence["np.ndarray[Any, Any]"]) -> list[str]:
    """The flags that give the sample, in the model's own order: names are only for its warnings."""
    names, shapes, places = [], [], []
    for number, array in enumerate(inputs):
        if array.ndim == 0 or array.dtype.kind not in "fiub":
            told = "a number without dimensions" if array.ndim == 0 else f"of type {array.dtype}"
            raise InputError(f"{shell.name}: input {number} is {told}, which benchmark_model cannot be given")
        data = np.ascontiguousarray(array).tobytes()
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            place = shell.send(Path(file.name), hashlib.sha256(data).hexdigest())
        if re.search("[:,]", place):
            raise InputError(f"{shell.name}: {place}: benchmark_model takes no : or , in a path", hint="set `root:`")
        names.append(f"input{number}")
        shapes.append(",".join(map(str, array.shape)))
        places.append(f"input{number}:{place}")
    layers = [f"--input_layer={','.join(names)}", f"--input_layer_shape={':'.join(shapes)}"]
    return [*layers, f"--input_layer_value_files={','.join(places)}"]


def _answer(shell: Shell, path: str, io: _Io) -> list[tuple[list[str], "np.ndarray[Any, Any]"]]:
    """The outputs, which stand one behind another in the file, as they are in memory."""
    size = sum(array.nbytes for _, array in io.outputs)
    try:
        data = shell.fetch(path, size + 1)
    except AgentFailed as fault:
        hint = "an old one has no flag --output_filepath: take a newer benchmark_model"
        raise NoRuntime(f"{shell.name}: benchmark_model wrote no outputs ({fault.message})", hint=hint) from fault
    if len(data) != size:
        raise AgentFailed(f"{shell.name}: benchmark_model wrote {len(data)} bytes of outputs; there are {size} here")
    found, at = [], 0
    for names, like in io.outputs:
        found.append((names, np.frombuffer(data, like.dtype, like.size, at).reshape(like.shape)))
        at += like.nbytes
    return found


def _run(shell: Shell, argv: list[str], end: float) -> Told:
    done = shell.run(argv, max(0.0, end - time.monotonic()))
    said = f"{done.stdout.decode('utf-8', 'replace')}\n{done.stderr}"
    if done.exit_code in _CANNOT_RUN:
        raise NoRuntime(f"{shell.name}: benchmark_model cannot be started: {_last(said)}", hint=_WHERE)
    if done.exit_code:
        raise AgentFailed(f"{shell.name}: benchmark_model {_how(done)}\n{_last(said)}", hint=_hint(done))
    try:
        return parse(said)
    except ValueError as fault:
        raise AgentFailed(f"{shell.name}: what benchmark_model prints cannot be read: {fault}\n{_last(said)}") from None


def _how(done: Finished) -> str:
    return "was killed" if done.exit_code == _KILLED else f"ended with {done.exit_code}"


def _hint(done: Finished) -> str:
    if done.exit_code == _KILLED:
        return "the kernel ends processes this way when memory runs out: see dmesg on the device"
    return "what it said stands above; its flags are explained by benchmark_model --help"


def _last(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return "\n".join((errors or lines)[-_LAST_LINES:]) or "it said nothing"


def parse(said: str) -> Told:
    """What a process printed; raises ValueError saying what is missing."""
    number = r"(-?(?:nan|[\d.]+(?:e[+-]?\d+)?))"
    timings = re.search(rf"Init: {number}, First inference: {number}, Warmup \(avg\): {number}", said)
    if timings is None:
        raise ValueError("no line of timings (Inference timings in us: Init: …)")
    found = re.findall(r"^(?:INFO: )?(count=\d+.*)$", said, re.MULTILINE)
    if len(found) < 2:
        raise ValueError("no two lines of runs (count=… first=… avg=…), of warming up and measured")
    warmup, measured = map(_statistics, found[-2:])
    if not measured.get("count"):
        raise ValueError("nothing was measured (count=0)")
    mean_us = measured.get("avg", measured["curr"])  # of runs that were all alike, or only one, no average is told
    peak = re.search(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {number}", said)
    return Told(
        init_us=float(timings[1]),
        first_us=float(timings[2]),
        warmup_us=float(timings[3]),
        warmup_runs=int(warmup["count"]),
        mean_us=mean_us,
        runs=int(measured["count"]),
        fastest_us=measured.get("min", mean_us),
        slowest_us=measured.get("max", mean_us),
        peak_mb=float(peak[1]) if peak else None,
        xnnpack="XNNPACK delegate" in said and "Though XNNPACK" not in said,
    )


def _statistics(line: str) -> dict[str, float]:
    return {key: float(value) for key, value in re.findall(r"(\w+)=(-?[\d.]+(?:e[+-]?\d+)?)", line)}


def parse_profile(text: str) -> list[dict[str, Any]]:
    """The ops in the order they ran, with their mean time in µs; raises AgentFailed when there are none.

    Of a delegate's kernels the names begin with `Delegate/`. Commas in names are written as tabs.
    """
    regular = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs:")[2]
    order = regular.partition(" Run Order ")[2].partition("\n\n")[0].splitlines()[1:]
    if len(order) < 2:
        raise AgentFailed("benchmark_model wrote no profile of its runs", hint="it needs --enable_op_profiling")
    columns = [word.strip() for word in order[0].split(",")]
    found = []
    for line in order[1:]:
        row = dict(zip(columns, (word.strip() for word in line.split(",", len(columns) - 1)), strict=False))
        name = re.sub(r"^\[(.*)\](:\d+)?$", r"\1", row.get("name", "").replace("\t", ","))
        delegated = name.startswith("Delegate/")
        with suppress(KeyError, ValueError):
            us = float(row["avg_ms"]) * 1000
            found.append({"name": name, "op": row["node type"], "where": "XNNPACK" if delegated else "", "us": us})
    return found
