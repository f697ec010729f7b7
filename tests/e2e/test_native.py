"""Our C programs on this machine: the agent's own record and rules, every type, and each way of failing."""

import os
import platform
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from int8_models import branching_onnx_bundle, int8_onnx_bundle, int8_tflite_bundle
from onnx import TensorProto, helper
from shells import TransportShell, require_compiler
from sshd import processes_with
from tiny_models import Bundle, digest_of, onnx_bundle, slow_onnx_bundle, tflite_bundle

from targets.agent.edge.answers import load_arrays
from targets.agent.edge.benchmark import records_of
from targets.agent.edge.child import run_benchmark
from targets.agent.edge.wire import Refused
from targets.errors import AgentFailed, DeployError, InputError, NoRuntime
from targets.native import glibc, tensors
from targets.native.build import compiler
from targets.native.vendor import ndk_command
from targets.records import TargetSpec
from targets.runners.native import NativeRunner
from targets.transports.local import LocalTransport
from targets.wire import decode_measurement

_ARCH = platform.machine()
_SPEC = TargetSpec(name="here")
BUNDLES = (tflite_bundle, onnx_bundle, int8_tflite_bundle, int8_onnx_bundle, branching_onnx_bundle)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TransportShell]:
    require_compiler(_ARCH)
    folder = tmp_path_factory.mktemp("device")
    transport = LocalTransport(_SPEC, folder)
    transport.open()
    yield TransportShell(transport, _ARCH, str(folder / "a; $HOME: 'folder'"))  # a name that nothing may take apart
    transport.close()


def bench(shell: TransportShell, bundle: Bundle, **settings: Any) -> Mapping[str, Any]:
    files = {"blob": bundle.model, "inputs": bundle.inputs, "expected": bundle.expected}
    deadline_s = settings.pop("deadline_s", 60.0)
    return NativeRunner(_SPEC).bench(shell, bundle.request(**settings), files, deadline_s)


def agents(bundle: Bundle) -> dict[str, Any]:
    """What the agent's benchmark process finds here."""
    settings = {"threads": 1, "warm_max_s": 0.05, "warm_min_samples": 3, "warm_max_samples": 50}
    files = {"blob": bundle.model, "inputs": bundle.inputs, "expected": bundle.expected}
    job = {"format": bundle.format, **{key: str(path) for key, path in files.items()}, **settings}
    return run_benchmark(job, lambda _: None)


@pytest.mark.parametrize("make", BUNDLES)
def test_the_record_is_the_agents(shell: TransportShell, tmp_path: Path, make: Callable[[Path], Bundle]) -> None:
    bundle = make(tmp_path)
    ours, theirs = bench(shell, bundle), agents(bundle)
    assert set(ours) == set(theirs) - {"delegated"}
    assert {key: type(value) for key, value in ours.items()} == {key: type(theirs[key]) for key in ours}
    assert set(ours["conditions"]) - {"runner"} == set(theirs["conditions"])
    assert (ours["runtime"], ours["max_steps"], ours["finite"]) == (theirs["runtime"], 0.0, True)
    assert bool(ours["delegate"]) == theirs["delegated"]
    measured = decode_measurement("here", bundle.request(), ours)
    assert len(measured.warm_ns) >= 3 and min(*measured.warm_ns, *measured.warmup_ns) > 0
    assert ours["load_peak_rss_bytes"] <= ours["peak_rss_bytes"] < 200_000_000


def test_a_wrong_answer_is_as_far_off_as_the_agent_finds(shell: TransportShell, tmp_path: Path) -> None:
    bundle = onnx_bundle(tmp_path, wrong_by=0.1)
    assert bench(shell, bundle)["max_steps"] == agents(bundle)["max_steps"] == pytest.approx(0.1 / 2 * 255, rel=1e-3)


def test_a_delegate_that_computes_only_a_part_is_named(shell: TransportShell, tmp_path: Path) -> None:
    bundle = tflite_bundle(tmp_path, remainders=1)
    np.savez(bundle.expected, y=np.full((1, 8), np.nan, np.float32))  # as 0 has no remainder by itself
    assert agents(bundle)["delegated"]
    assert bench(shell, bundle)["delegate"] == "XNNPACK"
    assert sum("profile=yes" in command for command in shell.commands) == 1  # never for those that tell by themselves


_TYPES = (
    *(np.bool_, np.int8, np.uint8, np.int16, np.uint16, np.int32),
    *(np.uint32, np.int64, np.uint64, np.float16, np.float32, np.float64),
)


def test_every_type_arrives_in_shapes_that_the_model_leaves_open(shell: TransportShell, tmp_path: Path) -> None:
    sample = {np.dtype(kind).name: np.arange(6).reshape(2, 3).astype(kind) for kind in _TYPES}
    sample["scalar"], sample["empty"] = np.array(7, np.int64), np.zeros((0, 3), np.float32)
    ends: dict[str, list[onnx.ValueInfoProto]] = {"": [], "_out": []}
    for name, array in sample.items():
        shape = ["n", *array.shape[1:]] if array.ndim else []
        for suffix, infos in ends.items():
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            infos.append(helper.make_tensor_value_info(name + suffix, kind, shape))
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in sample]
    bundle = onnx_model(tmp_path, nodes, ends[""], ends["_out"], sample)
    np.savez(bundle.expected, **{f"{name}_out": array for name, array in sample.items()})
    assert bench(shell, bundle)["max_steps"] == 0.0


def onnx_model(folder: Path, nodes: Any, inputs: Any, outputs: Any, sample: Mapping[str, np.ndarray]) -> Bundle:
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    bundle = Bundle("onnx", folder / "model.onnx", folder / "inputs.npz", folder / "expected.npz")
    onnx.save(model, bundle.model)
    np.savez(bundle.inputs, **sample)
    return bundle


def test_litert_takes_a_sample_of_another_shape(shell: TransportShell, tmp_path: Path) -> None:
    bundle = tflite_bundle(tmp_path)
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(3, 8)
    np.savez(bundle.inputs, x=x)
    np.savez(bundle.expected, y=x + x)
    assert bench(shell, bundle)["max_steps"] == agents(bundle)["max_steps"] == 0.0


def test_a_model_that_answers_differently_each_time_is_marked(shell: TransportShell, tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    node = helper.make_node("RandomNormalLike", ["x"], ["y"])
    bundle = onnx_model(tmp_path, [node], [x], [y], {"x": np.zeros(4, np.float32)})
    np.savez(bundle.expected, y=np.zeros(4, np.float32))
    assert "state or is random" in bench(shell, bundle)["conditions"]["answer"]


@pytest.mark.parametrize(
    ("make", "sample"),
    [
        (tflite_bundle, {"inner_x:0": np.ones((1, 8), np.float32)}),  # the tensor's name, not the signature's
        (tflite_bundle, {"inner_x": np.ones((1, 8), np.float32)}),  # that without what the converter added
        (tflite_bundle, {"whatever": np.ones((1, 8), np.float64)}),  # the only one, to be narrowed
        (tflite_bundle, {"x": np.ones((1, 8), np.int64)}),  # an integer is a float
        (onnx_bundle, {"whatever": np.ones((1, 8), np.float32)}),
    ],
)
def test_a_sample_is_made_to_fit_by_the_agents_rules(
    shell: TransportShell, tmp_path: Path, make: Callable[[Path], Bundle], sample: Mapping[str, np.ndarray]
) -> None:
    bundle = make(tmp_path)
    np.savez(bundle.inputs, **sample)
    np.savez(bundle.expected, y=np.full((1, 8), 2, np.float32))
    assert bench(shell, bundle)["max_steps"] == agents(bundle)["max_steps"] == 0.0


def refused(kind: type[DeployError], shell: TransportShell, bundle: Bundle, **settings: Any) -> str:
    with pytest.raises(kind) as caught:
        bench(shell, bundle, **settings)
    assert type(caught.value) is kind and caught.value.message.startswith("here: ")
    return caught.value.message


@pytest.mark.parametrize(
    ("make", "sample"),
    [
        (int8_tflite_bundle, {"x": np.ones((1, 64), np.float32)}),  # a guess would be needed
        (tflite_bundle, {"a": np.ones(8, np.float32), "b": np.ones(8, np.float32)}),
        (onnx_bundle, {"a": np.ones(8, np.float32), "b": np.ones(8, np.float32)}),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_in_the_agents_words(
    shell: TransportShell, tmp_path: Path, make: Callable[[Path], Bundle], sample: Mapping[str, np.ndarray]
) -> None:
    bundle = make(tmp_path)
    np.savez(bundle.inputs, **sample)
    with pytest.raises(Refused) as caught:
        agents(bundle)
    assert refused(InputError, shell, bundle) == f"here: {caught.value}"


def test_what_the_files_have_wrong_is_named(shell: TransportShell, tmp_path: Path) -> None:
    bundle = onnx_bundle(tmp_path)
    np.savez(bundle.expected, y=np.zeros((2, 8)))
    assert "in the expected file" in refused(InputError, shell, bundle)
    np.savez(bundle.inputs, x=np.ones((1, 8), np.int32))
    assert "Unexpected input data type" in refused(AgentFailed, shell, bundle)
    bundle.model.write_bytes(b"no model")
    assert "loading the model" in refused(AgentFailed, shell, bundle)
    bundle = tflite_bundle(tmp_path)
    bundle.model.write_bytes(bundle.model.read_bytes()[:200])
    assert "reading the model" in refused(AgentFailed, shell, bundle)
    bundle = tflite_bundle(tmp_path)
    np.savez(bundle.inputs, x=np.ones((3, 5, 8), np.float32))
    np.savez(bundle.expected, y=np.ones((3, 5, 9), np.float32))
    assert "in the expected file" in refused(InputError, shell, bundle)


def test_a_benchmark_that_is_killed_says_where_it_was(shell: TransportShell, tmp_path: Path) -> None:
    bundle = slow_onnx_bundle(tmp_path, 100_000_000)

    def kill() -> None:
        os.kill(process_with(digest_of(bundle.model)), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    message = refused(AgentFailed, shell, bundle)
    killer.join()
    assert "killed by SIGKILL; it was at: the first inference" in message


def process_with(word: str) -> int:
    """The process with that in its command line, half a second after it began."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if found := processes_with(word):
            time.sleep(0.5)
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"no process with {word} ever ran")


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_the_program_alone_names_what_is_wrong(tmp_path: Path, form: str) -> None:
    require_compiler(_ARCH)
    carried = glibc.carried(form, _ARCH)
    program, library = str(carried.files[carried.program]), str(carried.files[carried.library])
    rule = "threads=1 warm_max_ns=1 warm_min=1 warm_max=1 warmup_ns=1 warmup_max=1 window=5 converged=0.1 slow_ns=1"
    files = [f"{key}={tmp_path}/{key}" for key in ("model", "inputs", "outputs")]

    def error(*arguments: str) -> tuple[str, str]:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        (found,) = (record["error"] for record in records_of(done.stdout.encode()) if "error" in record)
        return found["code"], found["message"]

    assert error("threads=many")[0] == "agent"
    assert error(*rule.split())[1] == "library= is missing"
    common = [*rule.split(), *files, "version=1"]
    (tmp_path / "inputs").write_bytes(b"EDTENS1\n\1\0\0\0")
    assert error(*common, f"library={library}") == ("input", f"{tmp_path}/inputs cannot be used: " + _NAMELESS)
    (tmp_path / "inputs").write_bytes(b"EDTENS1\n\0\0\0\0")
    code, message = error(*common, "library=/nowhere.so")
    assert code == "no-runtime" and "/nowhere.so" in message
    code, message = error(*common, f"library={carried.files['libm.so.6']}")
    assert code == "no-runtime" and "its version is too old or too new" in message
    assert error(*common, f"library={library}", "mask=z") == ("agent", "mask=z is not hexadecimal")
    assert error(*common, f"library={library}", "mask=0")[0] == "agent"


_NAMELESS = "a tensor's number of names is wrong"


@pytest.mark.parametrize("make", [int8_tflite_bundle, branching_onnx_bundle])
def test_threads_and_mask_are_those_asked_for(tmp_path: Path, make: Callable[[Path], Bundle]) -> None:
    require_compiler(_ARCH)
    bundle = make(tmp_path)
    (tmp_path / "inputs").write_bytes(tensors.encode(load_arrays(str(bundle.inputs))))
    rule = "warm_max_ns=60000000000 warm_min=1 warm_max=1000000 warmup_ns=1 warmup_max=1 window=5 converged=0 slow_ns=1"
    carried = glibc.carried(bundle.format, _ARCH)
    argv = [str(carried.files[carried.program]), f"library={carried.files[carried.library]}", "version=1", "mask=1"]
    argv += [f"model={bundle.model}", f"inputs={tmp_path}/inputs", f"outputs={tmp_path}/outputs", *rule.split()]
    found = []
    for threads in (1, 3):
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([*argv, f"threads={threads}"], **quiet) as program:
            try:
                assert program.stdout
                while b"warm inference" not in program.stdout.readline():
                    assert program.poll() is None
                process = Path(f"/proc/{program.pid}")
                tasks = [(task / "status").read_text() for task in (process / "task").iterdir()]
                assert all("Cpus_allowed_list:\t0\n" in task for task in tasks)
                assert (process / "oom_score_adj").read_text() == "1000\n"
            finally:
                program.kill()
        found.append(len(tasks))
    assert found[1] - found[0] == 2


def test_an_architecture_without_wheels_is_refused(tmp_path: Path, shell: TransportShell) -> None:
    other = TransportShell(shell._transport, "armv7l", f"{shell.folder}/other")
    assert NativeRunner(_SPEC).runtimes(other) == {}
    with pytest.raises(NoRuntime, match="armv7l") as caught:
        bench(other, onnx_bundle(tmp_path))
    assert ".aar" in caught.value.hint


def archive(path: Path, library: bytes, folder: str = "jni") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(f"{folder}/arm64-v8a/libonnxruntime.so", library)
        made.writestr(f"{folder}/arm64-v8a/libc++_shared.so", b"\x7fELF c++")
        made.writestr(f"{folder}/x86_64/libonnxruntime.so", b"another")
        made.writestr("../../escape.so", b"never written")
    return path


class Recorder:
    """Takes what is installed and does not run it: an Android program cannot run here."""

    name, arch, folder = "phone", "aarch64", "/data/local/tmp"

    def install(self, files: Mapping[str, Path]) -> str:
        self.installed = {name: path.read_bytes() for name, path in files.items()}
        return "/data/local/tmp/x"

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError(name)


_ANDROID = "/system/bin/linker64"


def elf(machine: int, loader: str) -> bytes:
    """What is looked at of a program."""
    return b"\x7fELF\2\1\1".ljust(18, b"\0") + machine.to_bytes(2, "little") + bytes(44) + loader.encode() + b"\0"


@pytest.mark.parametrize(("name", "folder"), [("runtime.aar", "jni"), ("app.apk", "lib")])
def test_libraries_of_an_app_are_taken_with_the_users_own_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str
) -> None:
    """As far as it goes without Android: what is found, checked and brought, not that it runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = archive(tmp_path / name, b"\x7fELF ... VERS_1.24.3\0 ...", folder)
    runner_spec = TargetSpec(name="phone", libraries=str(place))
    runner = NativeRunner(runner_spec)
    phone = Recorder()
    assert runner.runtimes(phone) == {"onnxruntime": "1.24.3"}  # type: ignore[arg-type]
    bundle = onnx_bundle(tmp_path)
    files = {"blob": bundle.model, "inputs": bundle.inputs, "expected": bundle.expected}

    def attempt() -> None:
        runner.bench(phone, bundle.request(), files, 5.0)  # type: ignore[arg-type]

    with pytest.raises(NoRuntime, match="bench-onnx") as missing:
        attempt()
    assert "aarch64-linux-android28-clang" in missing.value.hint
    program = tmp_path / "bench-onnx"
    for wrong in (elf(183, "/lib/ld-linux-aarch64.so.1"), elf(62, _ANDROID), b"#!/system/bin/sh"):
        program.write_bytes(wrong)
        with pytest.raises(InputError, match="no Android program"):
            attempt()
    program.write_bytes(elf(183, _ANDROID))
    with pytest.raises(ConnectionError, match="send"):
        attempt()
    assert phone.installed == {
        "libonnxruntime.so": b"\x7fELF ... VERS_1.24.3\0 ...",
        "libc++_shared.so": b"\x7fELF c++",
        "bench-onnx": program.read_bytes(),
    }
    place.write_bytes(place.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read as an archive"):
        NativeRunner(runner_spec).runtimes(phone)  # type: ignore[arg-type]


def test_the_documented_command_of_the_ndk_compiles(tmp_path: Path) -> None:
    """Its flags and files, with this machine's compiler in place of the NDK's."""
    require_compiler(_ARCH)
    for form in ("tflite", "onnx"):
        words = ndk_command(form, "aarch64").split()
        subprocess.run(
            [compiler(_ARCH), *words[1:], "-Wall", "-Wextra", "-Wpedantic", "-Werror"], cwd=tmp_path, check=True
        )
        assert (tmp_path / f"bench-{form}").stat().st_size > 10_000
