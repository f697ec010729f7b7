"""What every transport must do, run over each of them: one suite, real processes, a real SSH server."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adb_client import Adb
from phones import phone
from sshd import Sshd, processes_with
from tiny_models import Bundle, digest_of, onnx_bundle, slow_onnx_bundle, tflite_bundle

from targets.device import Device, connect
from targets.errors import (
    AgentFailed,
    DeviceTimeout,
    DiskFull,
    HashMismatch,
    InputError,
    NoPython,
    NoRuntime,
    ReadOnly,
)
from targets.records import Absent, TargetSpec
from targets.transports import TRANSPORTS

MakeSpec = Callable[..., TargetSpec]


# Devices without Python keep files as those with our agent do.
WITHOUT_PYTHON = "adb, without python"
everywhere = pytest.mark.parametrize("make_spec", [*sorted(TRANSPORTS), WITHOUT_PYTHON], indirect=True)


@pytest.fixture(scope="session")
def a_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Adb, int]]:
    with phone(tmp_path_factory.mktemp("phone")) as found:
        yield found


@pytest.fixture(params=sorted(TRANSPORTS))
def make_spec(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSpec:
    """A target over each transport, its root in the test's own folder."""
    root = tmp_path / "device root; $HOME 'quoted'"  # a name no shell may touch
    common = {"root": str(root), "python": sys.executable, "step_timeout_s": 30.0}
    if request.param == "local":
        return lambda **more: TargetSpec(**{"name": "dev", "transport": "local", **common, **more})
    if request.param in ("adb", WITHOUT_PYTHON):
        adb, port = request.getfixturevalue("a_phone")
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", adb.environment["ANDROID_ADB_SERVER_PORT"])
        wifi = {"transport": "adb", "host": "127.0.0.1", "port": port}
        if request.param == WITHOUT_PYTHON:
            wifi["python"] = ""
        return lambda **more: TargetSpec(**{"name": "dev", **common, **wifi, **more})
    server: Sshd = request.getfixturevalue("shared_sshd")
    login = {
        "host": "127.0.0.1",
        "port": server.port,
        "identity_file": str(server.identity),
        "known_hosts": str(server.known_hosts),
    }
    return lambda **more: TargetSpec(**{"name": "dev", "transport": "ssh", **common, **login, **more})


@pytest.fixture
def device(make_spec: MakeSpec, tmp_path: Path) -> Iterator[Device]:
    with connect(make_spec(), state=tmp_path / "state") as connected:
        yield connected


def blobs(device: Device) -> Path:
    return Path(device.spec.root) / "blobs" / "sha256"


def leftovers(root: Path) -> list[Path]:
    return list(root.rglob("*.part"))


def push_all(device: Device, bundle: Bundle) -> list[bool]:
    return [device.push(path, digest_of(path)) for path in bundle.files]


def wait_until(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_facts_are_those_of_the_machine(device: Device) -> None:
    facts = device.facts()
    assert facts.target == "dev"
    assert facts.arch == os.uname().machine
    assert facts.kernel == os.uname().release
    assert facts.cpu_count == os.cpu_count()
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert {"ai-edge-litert", "onnxruntime"} <= set(facts.runtimes)
    assert not isinstance(facts.total_memory_bytes, Absent)
    assert facts.free_disk_bytes > 0


@everywhere
def test_a_file_arrives_whole_and_is_sent_once(device: Device, tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(os.urandom(3_000_000))
    digest, seen = digest_of(source), []
    assert device.push(source, digest, lambda sent, total: seen.append((sent, total))) is True
    assert (blobs(device) / digest).read_bytes() == source.read_bytes()
    assert seen[-1] == (3_000_000, 3_000_000) and seen == sorted(seen) and len(seen) > 1
    seen.clear()
    assert device.push(source, f"sha256:{digest}", lambda sent, total: seen.append((sent, total))) is False
    assert seen == []
    assert leftovers(Path(device.spec.root)) == []


@everywhere
def test_an_empty_file_can_be_pushed(device: Device, tmp_path: Path) -> None:
    source = tmp_path / "empty"
    source.touch()
    assert device.push(source, digest_of(source)) is True
    assert (blobs(device) / digest_of(source)).stat().st_size == 0


@everywhere
def test_a_file_that_is_not_what_it_was_called_is_refused(device: Device, tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(b"something else")
    with pytest.raises(HashMismatch, match="arrived as sha256"):
        device.push(source, "0" * 64)
    assert list(blobs(device).iterdir()) == [] and leftovers(Path(device.spec.root)) == []
    assert device.push(source, digest_of(source)) is True  # the session goes on


@everywhere
def test_a_short_blob_under_a_live_name_is_sent_again(device: Device, tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(b"x" * 1000)
    (blobs(device) / digest_of(source)).write_bytes(b"x" * 10)
    assert device.push(source, digest_of(source)) is True
    assert (blobs(device) / digest_of(source)).read_bytes() == source.read_bytes()


@everywhere
def test_a_file_that_is_not_there_is_the_users_mistake(device: Device, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        device.push(tmp_path / "nothing", "0" * 64)


@pytest.mark.parametrize("make", [tflite_bundle, onnx_bundle])
def test_a_benchmark_keeps_every_sample_and_the_answer(
    device: Device, tmp_path: Path, make: Callable[[Path], Bundle]
) -> None:
    bundle = make(tmp_path / "model")
    push_all(device, bundle)
    request = bundle.request()
    found = device.bench(request, deadline_s=60)
    assert found.blob == request.blob and found.target == "dev"
    assert found.runtime == {"tflite": "ai-edge-litert", "onnx": "onnxruntime"}[bundle.format]
    assert found.runtime_version == device.facts().runtimes[found.runtime]
    assert found.load_ns > 0 and found.first_ns > 0
    assert len(found.warmup_ns) >= 1 and 3 <= len(found.warm_ns) <= 50
    assert found.answer.finite and found.answer.max_steps == 0
    assert isinstance(found.load_peak_rss_bytes, int) and isinstance(found.peak_rss_bytes, int)
    assert 0 < found.load_peak_rss_bytes <= found.peak_rss_bytes
    assert isinstance(found.energy, Absent) and "not asked for" in found.energy.reason
    assert "load_1min_before" in found.conditions and "load_1min_after" in found.conditions


def test_a_wrong_answer_is_measured_in_steps(device: Device, tmp_path: Path) -> None:
    bundle = tflite_bundle(tmp_path / "model", wrong_by=0.1)  # the expected range is 2, so a step is 2/255
    push_all(device, bundle)
    assert device.bench(bundle.request(), 60).answer.max_steps == pytest.approx(0.1 / (2 / 255), rel=1e-3)


def test_a_slow_model_costs_no_warm_up_and_the_least_samples(device: Device, tmp_path: Path) -> None:
    bundle = slow_onnx_bundle(tmp_path / "model", 1_500_000)
    push_all(device, bundle)
    found = device.bench(bundle.request(warm_max_s=0.5), 120)
    assert found.first_ns > 0.5e9, "the model is meant to be slow"
    assert (len(found.warmup_ns), len(found.warm_ns)) == (0, 3)


def test_a_sample_that_does_not_fit_names_what_is_missing(device: Device, tmp_path: Path) -> None:
    bundle, other = onnx_bundle(tmp_path / "model"), slow_onnx_bundle(tmp_path / "other", 1)
    other.inputs.write_bytes(other.model.read_bytes())
    push_all(device, bundle)
    device.push(other.inputs, digest_of(other.inputs))
    request = bundle.request()
    changed = type(request)(**{n: getattr(request, n) for n in request.__slots__} | {"inputs": digest_of(other.inputs)})
    with pytest.raises(AgentFailed):
        device.bench(changed, 60)


def test_a_model_no_runtime_can_read_is_reported_with_its_reason(device: Device, tmp_path: Path) -> None:
    bundle = onnx_bundle(tmp_path / "model")
    bundle.model.write_bytes(b"not a model at all")
    push_all(device, bundle)
    with pytest.raises(AgentFailed, match="dev: "):
        device.bench(bundle.request(), 60)
    assert device.facts().target == "dev"


def test_a_rotten_blob_is_found_before_it_is_measured(device: Device, tmp_path: Path) -> None:
    bundle = onnx_bundle(tmp_path / "model")
    push_all(device, bundle)
    stored = blobs(device) / digest_of(bundle.model)
    stored.write_bytes(b"\0" * stored.stat().st_size)
    with pytest.raises(HashMismatch, match="has changed"):
        device.bench(bundle.request(), 60)
    assert push_all(device, bundle) == [True, False, False]
    assert device.bench(bundle.request(), 60).answer.finite


def bench_children(device: Device) -> list[int]:
    return [pid for pid in processes_with("--bench") if pid in processes_with(device.spec.root)]


def test_a_native_crash_is_reported_and_the_agent_lives_on(device: Device, tmp_path: Path) -> None:
    bundle = slow_onnx_bundle(tmp_path / "model", 10**9)
    push_all(device, bundle)

    def crash() -> None:
        wait_until(lambda: bench_children(device))
        time.sleep(1)
        os.kill(bench_children(device)[0], signal.SIGSEGV)

    thread = threading.Thread(target=crash)
    thread.start()
    with pytest.raises(AgentFailed, match=r"killed by SIGSEGV; it was at: .*"):
        device.bench(bundle.request(), 60)
    thread.join()
    assert device.facts().target == "dev"


def test_a_benchmark_that_outlives_its_deadline_is_ended(device: Device, tmp_path: Path) -> None:
    bundle = slow_onnx_bundle(tmp_path / "model", 10**9)
    push_all(device, bundle)
    start = time.monotonic()
    with pytest.raises(DeviceTimeout, match="outlived its deadline; it was at: the first inference"):
        device.bench(bundle.request(), deadline_s=3)
    assert time.monotonic() - start < 10
    assert bench_children(device) == []
    assert device.facts().target == "dev"


def test_a_benchmark_waits_for_another_one_and_says_so(device: Device, tmp_path: Path) -> None:
    bundle = onnx_bundle(tmp_path / "model")
    push_all(device, bundle)
    with (Path(device.spec.root) / "bench.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(1.5, fcntl.flock, (lock, fcntl.LOCK_UN))
        timer.start()
        found = device.bench(bundle.request(), 60)
        timer.join()
        assert found.conditions["waited_for_other_benchmark_s"] in ("1", "2")
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DeviceTimeout, match="another benchmark held this device"):
            device.bench(bundle.request(), 0.5)


def test_ctrl_c_during_a_benchmark_leaves_nothing_running(device: Device, tmp_path: Path) -> None:
    bundle = slow_onnx_bundle(tmp_path / "model", 10**9)
    push_all(device, bundle)

    def interrupt() -> None:
        wait_until(lambda: bench_children(device))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        device.bench(bundle.request(), 60)
    thread.join()
    device.close()
    wait_until(lambda: not processes_with(device.spec.root))


@everywhere
def test_ctrl_c_during_a_push_leaves_no_blob_and_no_part_but_one_to_go_on_with(device: Device, tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(os.urandom(4_000_000))

    def progress(sent: int, total: int) -> None:
        if sent > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.push(source, digest_of(source), progress)
    wait_until(lambda: not [part for part in leftovers(Path(device.spec.root)) if part.parent.name != "incoming"])
    assert list(blobs(device).iterdir()) == []
    wait_until(lambda: not processes_with(device.spec.root))


def test_what_a_killed_session_left_is_swept_by_the_next(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec()
    root = Path(spec.root)
    first = connect(spec, state=tmp_path)
    stray = next((root / "parts").iterdir()) / f"{'0' * 64}.part"
    stray.write_bytes(b"half a file")
    with connect(spec, state=tmp_path):
        assert stray.exists(), "a living session's files are its own"
    for pid in processes_with(spec.root):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes_with(spec.root))
    with pytest.raises(AgentFailed, match="the agent ended"):
        first.facts()
    first.close()
    with connect(spec, state=tmp_path):
        assert not stray.exists()
    assert leftovers(root) == [root / "incoming" / stray.name], "kept for whoever sends that file again"


def test_a_python_that_is_not_there_is_named(make_spec: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(NoPython, match="/nowhere/python3 cannot be run") as caught:
        connect(make_spec(python="/nowhere/python3"), state=tmp_path)
    assert "`python:` of target dev" in caught.value.hint


def test_a_python_that_is_too_old_is_named(make_spec: MakeSpec, tmp_path: Path) -> None:
    old = tmp_path / "python3.6"
    old.write_text('#!/bin/sh\necho \'{"edge_deploy_boot": 1, "python": [3, 6, 9]}\'\n')
    old.chmod(0o755)
    with pytest.raises(NoPython, match=r"Python 3\.6\.9, which is too old"):
        connect(make_spec(python=str(old)), state=tmp_path)


def test_noise_of_a_login_script_does_not_disturb(make_spec: MakeSpec, tmp_path: Path) -> None:
    noisy = tmp_path / "noisy"
    noisy.write_text(f"#!/bin/sh\necho Welcome to the board\nexec '{sys.executable}' \"$@\"\n")
    noisy.chmod(0o755)
    with connect(make_spec(python=str(noisy)), state=tmp_path) as device:
        assert device.facts().cpu_count == os.cpu_count()


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with no packages at all."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


@pytest.mark.parametrize(
    ("make", "package"), [(tflite_bundle, "pip install ai-edge-litert"), (onnx_bundle, "pip install onnxruntime")]
)
def test_a_missing_runtime_names_the_line_that_installs_it(
    make_spec: MakeSpec, bare_python: Path, tmp_path: Path, make: Callable[[Path], Bundle], package: str
) -> None:
    bundle = make(tmp_path / "model")
    with connect(make_spec(python=str(bare_python)), state=tmp_path) as device:
        assert device.facts().runtimes == {}
        push_all(device, bundle)
        with pytest.raises(NoRuntime, match=f"dev: no runtime for {bundle.format}: .* found: none") as caught:
            device.bench(bundle.request(), 60)
    assert f"{bare_python} -m {package}" in caught.value.hint


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder on a disk of 4 MB, or of so many as the test asks for."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={getattr(request, 'param', 4)}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@needs_root
@everywhere
def test_a_file_too_large_for_the_disk_is_not_sent(make_spec: MakeSpec, small_disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(b"\0" * 6_000_000)
    reason = r"blob needs 6,000,000 bytes, [\d,]+ are free"
    with (
        connect(make_spec(root=str(small_disk / "root")), state=tmp_path) as device,
        pytest.raises(DiskFull, match=reason) as caught,
    ):
        device.push(source, digest_of(source), lambda *_: pytest.fail("something was sent"))
    assert caught.value.hint


# So large that it is filled long before the file is there, also on a busy machine: `adb` sends ahead of what it tells.
@pytest.mark.parametrize("small_disk", [40], indirect=True)
@needs_root
@everywhere
def test_a_disk_that_fills_up_on_the_way_is_reported_and_left_clean(
    make_spec: MakeSpec, small_disk: Path, tmp_path: Path
) -> None:
    source, ballast = tmp_path / "blob", small_disk / "ballast"
    source.write_bytes(os.urandom(32_000_000))
    with connect(make_spec(root=str(small_disk / "root")), state=tmp_path) as device:
        with pytest.raises(DiskFull, match=r"(?i)no space left on (the )?device"):
            device.push(source, digest_of(source), lambda *_: _fill(ballast))
        assert leftovers(small_disk) == [] and list(blobs(device).iterdir()) == []
        ballast.unlink()
        assert device.push(source, digest_of(source)) is True


def _fill(path: Path) -> None:
    """At once, and all of it: in ever smaller pieces, since the file on its way takes some of the room meanwhile."""
    piece = 1 << 24
    with path.open("ab", buffering=0) as file:
        while piece >= 4096:
            try:
                os.posix_fallocate(file.fileno(), path.stat().st_size, piece)
            except OSError:
                piece //= 2


@needs_root
@everywhere
def test_a_read_only_file_system_is_named_as_such(make_spec: MakeSpec, small_disk: Path, tmp_path: Path) -> None:
    spec = make_spec(root=str(small_disk / "root"))
    source = tmp_path / "blob"
    source.write_bytes(b"content")
    with connect(spec, state=tmp_path) as device, pytest.raises(ReadOnly, match="does not take writes") as caught:
        _remount_read_only_and_push(device, source, small_disk)
    assert "`root:` of target dev" in caught.value.hint or str(small_disk) in caught.value.hint
    with pytest.raises(ReadOnly):
        connect(make_spec(root=str(small_disk / "other")), state=tmp_path)


def _remount_read_only_and_push(device: Device, source: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    device.push(source, digest_of(source))
