"""Benchmarks on a device without Python: what a runner gets of the device, and what is done around it for all of them.

The device is the lab's Python adb daemon on this machine's own files; the runner is a small one in shell.
"""

import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from phones import phone
from tiny_models import Bundle, digest_of, onnx_bundle

from targets.device import connect
from targets.devices.shell import ShellDevice
from targets.devices.shell_session import ShellSession
from targets.devices.turn import turn
from targets.errors import AgentFailed, ConnectionLost, DeviceTimeout, HashMismatch
from targets.records import BenchRequest, TargetSpec
from targets.runner import Shell
from targets.transports.adb import AdbTransport


class WordCounter:
    """Counts the bytes of the model: enough to see that all that a runner needs is there."""

    def __init__(self, spec: TargetSpec) -> None:
        self.spec = spec

    def runtimes(self, shell: Shell) -> Mapping[str, str]:
        return {"wc": shell.arch}

    def bench(
        self, shell: Shell, request: BenchRequest, files: Mapping[str, Path], deadline_s: float
    ) -> Mapping[str, Any]:
        folder = shell.install({"count; it": files["inputs"]})
        model = shell.send(files["blob"], request.blob)
        done = shell.run(["sh", "-c", 'wc -c <"$0"; ls "$1"; sleep "$2"', model, folder, "0.1"], deadline_s)
        size, name = done.stdout.decode().split("\n")[:2]
        assert (int(size), name) == (files["blob"].stat().st_size, "count; it")
        times: dict[str, Any] = {"load_ns": 1, "first_ns": 2, "warmup_ns": [3], "warm_ns": [4, 5]}
        memory = {"load_peak_rss_bytes": None, "peak_rss_bytes": 6}
        who = {"runtime": "wc", "runtime_version": "1", "delegate": ""}
        conditions = {"threads": str(request.threads)}
        return {**who, **times, **memory, "max_steps": 0.0, "finite": True, "conditions": conditions}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TargetSpec]:
    with phone(tmp_path_factory.mktemp("phone")) as (adb, port), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", adb.environment["ANDROID_ADB_SERVER_PORT"])
        yield TargetSpec(name="ph", transport="adb", host="127.0.0.1", port=port)


@pytest.fixture
def device(spec: TargetSpec, tmp_path: Path) -> Iterator[ShellDevice]:
    with opened(replace(spec, root=str(tmp_path / "the root")), tmp_path) as found:
        yield found


def opened(spec: TargetSpec, state: Path) -> ShellDevice:
    transport = AdbTransport(spec, state)
    transport.open()
    return ShellDevice(transport, ShellSession(transport), WordCounter(spec))


def session_of(device: ShellDevice) -> ShellSession:
    return device._session


@pytest.fixture
def bundle(device: ShellDevice, tmp_path: Path) -> Bundle:
    made = onnx_bundle(tmp_path / "model")
    for path in made.files:
        device.push(path, digest_of(path))
    return made


def files_of(bundle: Bundle) -> dict[str, Path]:
    return dict(zip(("blob", "inputs", "expected"), bundle.files, strict=True))


def test_a_runner_measures_and_the_conditions_stand_around_it(device: ShellDevice, bundle: Bundle) -> None:
    found = device.bench(bundle.request(), 30, files_of(bundle))
    assert (found.runtime, found.first_ns, found.warm_ns) == ("wc", 2, (4, 5))
    assert found.conditions["threads"] == str(bundle.request().threads)
    assert "load_1min_before" in found.conditions and "load_1min_after" in found.conditions
    assert device.facts().runtimes == {"wc": device.facts().arch}


def test_a_rotten_file_is_found_before_it_is_measured(device: ShellDevice, bundle: Bundle) -> None:
    stored = Path(device.spec.root) / "blobs/sha256" / digest_of(bundle.model)
    stored.write_bytes(b"\0" * stored.stat().st_size)
    with pytest.raises(HashMismatch, match=r"the stored blob .* has changed"):
        device.bench(bundle.request(), 30, files_of(bundle))
    with pytest.raises(AgentFailed, match="is not on the device"):
        device.bench(bundle.request(), 30, files_of(bundle))


def test_benchmarks_take_turns(device: ShellDevice, bundle: Bundle, tmp_path: Path) -> None:
    with opened(device.spec, tmp_path) as other:
        with turn(session_of(other), 30.0) as waited_s:
            assert waited_s < 1
            with pytest.raises(DeviceTimeout, match="another benchmark held this device") as caught:
                device.bench(bundle.request(), 0.5, files_of(bundle))
            assert session_of(other).session in caught.value.hint
            timer = threading.Timer(1.5, other.close)  # whoever leaves without a word leaves no lock
            timer.start()
            found = device.bench(bundle.request(), 30, files_of(bundle))
            timer.join()
        assert int(found.conditions["waited_for_other_benchmark_s"]) >= 1
    assert not (Path(device.spec.root) / "bench.turn").exists()


def test_only_one_of_many_takes_over_a_lock_whose_time_is_over(device: ShellDevice, tmp_path: Path) -> None:
    lock = Path(device.spec.root) / "bench.turn"
    for _ in range(2):
        lock.mkdir()
        (lock / "owner").write_text(f"{session_of(device).session} 1\n")  # alive, but until 1970
        holding, most = [0], []

        def hold(other: ShellDevice, holding: list[int] = holding, most: list[int] = most) -> None:
            with turn(session_of(other), 30.0):
                holding[0] += 1
                most.append(holding[0])
                time.sleep(0.05)
                holding[0] -= 1

        others = [opened(device.spec, tmp_path) for _ in range(4)]
        threads = [threading.Thread(target=hold, args=(other,)) for other in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for other in others:
            other.close()
        assert most == [1, 1, 1, 1]
        shutil.rmtree(lock, ignore_errors=True)


def test_programs_have_arguments_input_and_a_deadline(device: ShellDevice, tmp_path: Path) -> None:
    session = session_of(device)
    hostile = ["", "two words", "$HOME", "`id`", "it's", 'a"b', "new\nline", "*", "--", "\\"]
    done = session.run(["printf", "%s|", *hostile], 10)
    assert done.stdout.decode() == "".join(f"{word}|" for word in hostile)
    done = session.run(["sh", "-c", "cat; echo wrong >&2; exit 7"], 10, stdin=b"\0\xff\n" * 300_000)
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"\0\xff\n" * 300_000, "wrong")
    start = time.monotonic()
    with pytest.raises(DeviceTimeout, match="sleep outlived its deadline of 1 s"):
        session.run(["sleep", "1000"], 1)
    assert time.monotonic() - start < 5
    with pytest.raises(AgentFailed, match="more than"):
        session.run(["head", "-c", "9000000", "/dev/zero"], 30)
    assert session.run(["sh", "-c", "kill -9 $$"], 10).exit_code == 137
    blob = tmp_path / "blob"
    blob.write_bytes(bytes(range(256)) * 100 + b"\n")
    path = session.send(blob, digest_of(blob))
    assert session.fetch(path, 30_000) == blob.read_bytes()
    with pytest.raises(AgentFailed):
        session.fetch(path, 1000)
    with pytest.raises(AgentFailed, match="No such file"):
        session.fetch(path + "x", 1000)
    device.close()
    with pytest.raises(ConnectionLost, match="session is over"):
        session.run(["true"], 1)
    assert connect(device.spec, state=tmp_path).close() is None
