"""Our own C programs, which need neither Python nor anything else on the device (`targets.native`)."""

import hashlib
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from targets.agent.edge import sampling
from targets.agent.edge.answers import compare, load_arrays
from targets.agent.edge.benchmark import STDERR_TAIL_BYTES, judge_child
from targets.agent.edge.runtimes import cast, exact_int8, pick, plain_name
from targets.agent.edge.wire import Refused
from targets.agent.session import ERROR_CLASSES
from targets.delivery import digest_hex
from targets.errors import AgentFailed, DeployError, InputError, NoRuntime
from targets.native import glibc, tensors, vendor
from targets.native.build import ARCHITECTURES, PROGRAMS
from targets.native.glibc import Carried
from targets.records import BenchRequest, TargetSpec
from targets.runner import Finished, Shell

_SIGNALLED = 128  # a shell's exit code of a program that a signal ended, less the signal
_ROOM_BYTES = 64 << 20  # beyond the expected answer: what has another shape is to be named, not cut off
_READ_S = 10.0  # of /proc/cpuinfo; the deadline of a benchmark is not for it

_HINTS: Mapping[str, str] = {
    "no-runtime": "it takes LiteRT 2.3 or later, or ONNX Runtime 1.11 or later, built for this device",
    "disk-full": "free space on the device",
    "read-only": "set `root:` of the target to a folder that takes writes and lets programs run",
    "input": "give the sample under the model's own names, in its types and shapes",
}

Arrays = Mapping[str, tensors.Array]


class NativeRunner:
    """Brings a program and its runtime, runs it once, and judges its answer by the agent's own rules."""

    def __init__(self, spec: TargetSpec) -> None:
        self._archive = Path(spec.libraries).expanduser() if spec.libraries else None
        self._known: dict[str, Mapping[str, str]] = {}  # runtimes by architecture: a version is in the library itself

    def runtimes(self, shell: Shell) -> Mapping[str, str]:
        """What it can bring; nothing is built or sent to say so. Raises InputError for an unusable archive."""
        if self._archive:
            if shell.arch not in self._known:
                self._known[shell.arch] = vendor.runtimes(self._archive, shell.arch)
            return self._known[shell.arch]
        return dict(map(glibc.pinned, PROGRAMS)) if shell.arch in ARCHITECTURES else {}

    def bench(
        self, shell: Shell, request: BenchRequest, files: Mapping[str, Path], deadline_s: float
    ) -> Mapping[str, Any]:
        """One benchmark; its answer is compared here. Raises what `targets.runner.Runner.bench` names."""
        if request.pause_s or request.governor:
            raise InputError(f"{shell.name}: without Python there are no pauses between runs and no governor is set")
        carried = self._carried(shell, request.format)
        folder = shell.install(carried.files)
        argv = [*_on(request.cpus), *carried.command(folder)]
        argv += [f"library=./{carried.library}", f"version={carried.version}"]
        for digest in request.beside:
            shell.send(files[digest], digest)  # the model asks for it under this name, in the folder that it is in
        argv += [f"model={shell.send(files['blob'], digest_hex(request.blob))}", *rule(request)]
        if request.format == "onnx":
            argv += [f"config={key}={value}" for key, value in _exact_int8(shell).items()]
        sample, expected = _arrays(files["inputs"]), _arrays(files["expected"])
        end = time.monotonic() + deadline_s  # bringing thirty megabytes is not what the deadline is for
        try:
            result = _run(shell, argv, sample, end)
        except Refused as refusal:
            if not (wanted := refusal.error.get("inputs")):
                raise _named(shell, refusal) from refusal
            try:  # once more with what the model wants, if the agent's rules find it in the sample
                sample = _fitting(wanted, sample, request.format)
                result = _run(shell, argv, sample, end)
            except Refused as again:
                raise _named(shell, again) from again
        limit = sum(array.nbytes for array in expected.values()) + _ROOM_BYTES
        answer = _decoded(shell, shell.fetch(f"{shell.folder}/outputs", limit))
        try:
            steps, finite = compare(answer, dict(expected))
        except Refused as refusal:
            raise _named(shell, refusal) from refusal
        if request.format == "tflite" and not result["delegate"]:
            result["delegate"] = _delegate(shell, argv, sample, end)
        conditions = {"runner": carried.how, **result["conditions"]}
        return {**result, "max_steps": steps, "finite": finite, "conditions": conditions}

    def _carried(self, shell: Shell, form: str) -> Carried:
        if form not in PROGRAMS:
            raise NoRuntime(
                f"{shell.name}: the runner `native` has no program for .{form} models: they need Python and PyTorch",
                hint="leave the torch recipes out for this target, or give it `python:` with PyTorch installed",
            )
        if self._archive:
            return vendor.carried(self._archive, form, shell.arch)
        return glibc.carried(form, shell.arch)


def _on(cpus: Sequence[int]) -> list[str]:
    """The command that keeps what follows on these cores; every Android has it."""
    return ["taskset", f"{sum(1 << cpu for cpu in set(cpus)):x}"] if cpus else []


def rule(request: BenchRequest) -> list[str]:
    """How long to measure, and the agent's rule of warming up."""
    most = min(request.warm_max_samples, sampling.MAX_WARM_SAMPLES)
    numbers = {
        "threads": request.threads,
        "warm_max_ns": int(request.warm_max_s * 1e9),
        "warm_min": request.warm_min_samples,
        "warm_max": most,
        "warmup_ns": int(request.warm_max_s * 1e9 * sampling.WARMUP_SHARE),
        "warmup_max": sampling.WARMUP_MAX_RUNS,
        "window": sampling.WARMUP_WINDOW,
        "converged": sampling.CONVERGED,
        "slow_ns": sampling.SLOW_RUN_NS,
    }
    if plan := request.energy:
        seconds = {"window_ns": plan.window_s, "idle_ns": plan.idle_s, "settle_ns": plan.settle_s}
        numbers |= {"windows": plan.windows, **{key: int(value * 1e9) for key, value in seconds.items()}}
    return [f"{key}={value}" for key, value in numbers.items()]


def _exact_int8(shell: Shell) -> Mapping[str, str]:
    """The session settings that the agent makes on such a CPU."""
    if shell.arch not in ("x86_64", "i686"):
        return {}
    cpuinfo = shell.run(["cat", "/proc/cpuinfo"], _READ_S).stdout.decode("utf-8", "replace")
    return exact_int8(cpuinfo)


def _arrays(path: Path) -> Arrays:
    try:
        loaded: Arrays = load_arrays(str(path))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as fault:
        raise InputError(f"{path} cannot be read: {fault}") from fault
    return loaded


def _run(shell: Shell, argv: list[str], sample: Arrays, end: float) -> dict[str, Any]:
    """The program's result on this sample; raises Refused for an error of its own, and what the shell raises."""
    try:
        data = tensors.encode(sample)
    except ValueError as fault:
        raise Refused("input", f"the sample cannot be used: {fault}") from fault
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        inputs = shell.send(Path(file.name), hashlib.sha256(data).hexdigest())
    done = shell.run([*argv, f"inputs={inputs}", f"outputs={shell.folder}/outputs"], max(0.0, end - time.monotonic()))
    return _judged(done)


def _delegate(shell: Shell, argv: list[str], sample: Arrays, end: float) -> str:
    """The delegate that computes a part of the model, found by profiling a run of its own; empty for none."""
    try:
        return str(_run(shell, [*argv, "profile=yes"], sample, end)["delegate"])
    except Refused:
        return ""  # what was measured stands without it


def _judged(done: Finished) -> dict[str, Any]:
    status = done.exit_code if done.exit_code <= _SIGNALLED else _SIGNALLED - done.exit_code
    try:
        return judge_child(status, done.stdout, done.stderr)
    except Refused as refusal:
        if refusal.error["code"] == "agent":  # LiteRT gives a number, and says the rest on stderr
            refusal.error.setdefault("stderr", _last_words(done.stderr))
        raise
    except (KeyError, TypeError, AttributeError) as fault:
        raise Refused("agent", f"the program's answer is out of protocol ({fault!r})") from fault


def _last_words(noise: str) -> str:
    return "\n".join(line for line in noise.splitlines() if line.startswith("ERROR"))[-STDERR_TAIL_BYTES:]


def _fitting(wanted: list[dict[str, Any]], sample: Arrays, form: str) -> Arrays:
    """The sample under the model's own names and in its types; raises Refused when it does not fit."""
    arrays = {}
    for tensor in wanted:
        own: list[str] = tensor["names"]
        names = own if form == "onnx" else [*own, plain_name(own[-1])]
        array = pick(dict(sample), names, len(wanted), "input")
        arrays[own[0]] = array if form == "onnx" else cast(array, np.dtype(tensor["dtype"]), own[0])
    return arrays


def _decoded(shell: Shell, data: bytes) -> list[tuple[list[str], tensors.Array]]:
    """The answer, each output with all the names that the expected file may use for it."""
    try:
        found = tensors.decode(data)
    except ValueError as fault:
        raise AgentFailed(f"{shell.name}: the program's answer cannot be read: {fault}") from fault
    return [([*names, plain_name(names[-1])], array) for names, array in found]


def _named(shell: Shell, refusal: Refused) -> DeployError:
    error = refusal.error
    text = f"{shell.name}: {error['message']}"
    if error.get("stderr"):
        text += f"\n{error['stderr']}"
    hint = _HINTS.get(error["code"], "")
    if "SIGKILL" in text:
        hint = "the kernel ends processes this way when memory runs out: see dmesg on the device"
    return ERROR_CLASSES.get(error["code"], AgentFailed)(text, hint=hint)
