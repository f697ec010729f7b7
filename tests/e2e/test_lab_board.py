"""Emulated ARM64 boards of the device lab: what they look like, and that integer models answer bit by bit as here."""

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from int8_models import branching_onnx_bundle, int8_onnx_bundle, int8_tflite_bundle
from labs import lab_namespaces, reconnected, remains, require_lab, running, surroundings
from projects import project
from tiny_models import Bundle, digest_of, onnx_bundle, tflite_bundle

from targets.device import Device, connect
from targets.errors import AgentFailed, AuthRefused, DiskFull, HostKeyRejected, ReadOnly, Unreachable, UsageError
from targets.lab.emulation import ensure_emulation
from targets.lab.faults import inflict
from targets.lab.lab import Wanted, command_inside, down, plan
from targets.lab.power.cgroup import left_of
from targets.lab.power.truth import last_truth
from targets.lab.profiles import profiles
from targets.lab.state import LabState
from targets.lab.tree import ensure_tree
from targets.lab.trees import ARM64, interpreter
from targets.records import Absent, Measurement, TargetSpec

BOARDS = ("rpi3", "rpi4", "rpi5", "jetson")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabState]:
    require_lab("ssh", "arm64")
    with running(Wanted(counts={"ssh": 1, "arm64": 4}, profiles=BOARDS), f"test-{secrets.token_hex(4)}") as lab:
        yield lab


def board(lab: LabState, kind: str) -> TargetSpec:
    return next(spec for spec in lab.target_specs() if spec.name.startswith(kind))


def inside(lab: LabState, device: str, *command: str) -> str:
    return subprocess.run(command_inside(lab, device, command), check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("kind", "model", "core", "features"),
    [
        ("rpi3", "Raspberry Pi 3 Model B Rev 1.2", "4x Cortex-A53", {"asimd"}),
        ("rpi4", "Raspberry Pi 4 Model B Rev 1.5", "4x Cortex-A72", {"asimd"}),
        ("rpi5", "Raspberry Pi 5 Model B Rev 1.0", "4x Cortex-A76", {"asimd", "asimddp", "asimdhp"}),
        ("jetson", "NVIDIA Jetson Orin Nano Developer Kit", "6x Cortex-A78AE", {"asimd", "asimddp", "asimdhp"}),
    ],
)
def test_each_board_is_what_it_claims_and_is_labelled_emulated(
    lab: LabState, tmp_path: Path, kind: str, model: str, core: str, features: set[str]
) -> None:
    with connect(board(lab, kind), state=tmp_path) as device:
        facts = device.facts()
    assert facts.arch == "aarch64"
    assert model in facts.cpu_model and core in facts.cpu_model
    assert features <= set(facts.cpu_features)
    assert ("asimddp" in facts.cpu_features) == ("asimddp" in features)
    assert facts.kernel == profiles()[kind]["kernel"]
    assert facts.python.startswith("3.11.")
    assert set(facts.runtimes) >= {"ai-edge-litert", "onnxruntime"}
    assert facts.governor == profiles()[kind]["governor"]
    assert not isinstance(facts.temperature_c, Absent) and 40 < facts.temperature_c < 60
    assert "qemu" in facts.emulated


def answer(device: Device, bundle: Bundle) -> Measurement:
    for path in bundle.files:
        device.push(path, digest_of(path))
    measured = device.bench(bundle.request(), 120)
    assert measured.answer.finite
    assert "qemu" in measured.conditions["emulated"]
    return measured


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("rpi4", int8_tflite_bundle),
        ("rpi4", int8_onnx_bundle),
        ("rpi5", int8_tflite_bundle),  # has the dot product, which chooses other kernels
        ("rpi5", int8_onnx_bundle),
        ("rpi4", branching_onnx_bundle),
        ("rpi5", branching_onnx_bundle),
        ("rpi4", tflite_bundle),
        ("rpi4", onnx_bundle),
    ],
)
def test_models_answer_as_on_the_host_to_the_bit(
    lab: LabState, tmp_path: Path, kind: str, make: Callable[[Path], Bundle]
) -> None:
    with connect(board(lab, kind), state=tmp_path) as device:
        assert answer(device, make(tmp_path / "model")).answer.max_steps == 0


def test_each_runtime_has_an_environment_of_its_own(lab: LabState, tmp_path: Path) -> None:
    found = {}
    for name in ("litert", "onnxruntime", "tflite", "edge"):
        with connect(replace(board(lab, "rpi4"), python=interpreter(name)), state=tmp_path) as device:
            found[name] = set(device.facts().runtimes)
    assert found == {
        "litert": {"ai-edge-litert"},
        "onnxruntime": {"onnxruntime"},
        "tflite": {"tflite-runtime"},
        "edge": {"ai-edge-litert", "onnxruntime"},
    }


def test_the_older_runtime_answers_within_a_rounding_step(lab: LabState, tmp_path: Path) -> None:
    """tflite-runtime 2.14 does not use XNNPACK for int8: its own kernels round ties the other way."""
    bundle = int8_tflite_bundle(tmp_path / "model")
    with connect(replace(board(lab, "rpi4"), python=interpreter("tflite")), state=tmp_path) as device:
        measured = answer(device, bundle)
    assert (measured.runtime, measured.runtime_version) == ("tflite-runtime", "2.14.0")
    assert measured.answer.max_steps <= 1


def test_a_board_is_administered_like_one(lab: LabState) -> None:
    name = board(lab, "rpi4").name
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    inside(lab, name, "sh", "-c", f"echo performance > {governor}")
    assert inside(lab, name, "cat", governor) == "performance\n"
    assert inside(lab, name, "vcgencmd", "get_throttled") == "throttled=0x0\n"
    inside(lab, name, "touch", "/etc/mine")  # the tree below is shared, and stays as it was
    assert not (Path(lab.resources["arm64"]) / "etc/mine").exists()
    others = inside(lab, board(lab, "rpi5").name, "ls", "/etc")
    assert "mine" not in others.split()


def test_faults_of_the_device_itself(lab: LabState, tmp_path: Path) -> None:
    name = board(lab, "rpi3").name
    spec = replace(board(lab, "rpi3"), connect_timeout_s=15.0)
    bundle = tflite_bundle(tmp_path / "model")
    for fault, kind in (("full", DiskFull), ("readonly", ReadOnly), ("auth", AuthRefused), ("hang", Unreachable)):
        inflict(lab, name, fault)
        patience = replace(spec, connect_timeout_s=3.0) if fault == "hang" else spec
        with pytest.raises(kind), connect(patience, state=tmp_path) as device:
            device.push(bundle.model, digest_of(bundle.model))
        inflict(lab, name, "restore")
    inflict(lab, name, "hostkey")
    with pytest.raises(HostKeyRejected):
        reconnected(spec, tmp_path)  # sshd starts itself again
    inflict(lab, name, "reboot", 0.1)  # the disk is new, and with it the key
    with reconnected(spec, tmp_path) as device:
        assert device.push(bundle.model, digest_of(bundle.model))


def test_a_board_that_gets_hot_says_so_and_really_slows_down(lab: LabState) -> None:
    """As a user would see it over SSH; joules and quota are judged in test_lab_power."""
    name = board(lab, "rpi4").name

    spec, truth = board(lab, "rpi4"), lab.folder / name / "power.jsonl"
    ours = [folder for folder in left_of(lab.name) if folder.name.endswith(name)]
    (statistics,) = (path for folder in ours for path in folder.glob("cpu.stat") if "nr_throttled" in path.read_text())

    def kept_back() -> str:
        return dict(line.split() for line in statistics.read_text().splitlines())["nr_throttled"]

    def work() -> tuple[float, bool]:
        """Cores that a loop got which would take a whole one, and whether the quota has kept it from more."""
        loop = subprocess.Popen(ssh(spec, "timeout 3 sh -c 'while :; do :; done'"), stderr=subprocess.DEVNULL)
        time.sleep(1.5)
        before, kept_before = last_truth(truth), kept_back()
        time.sleep(1.0)
        after, kept_after = last_truth(truth), kept_back()
        loop.wait()
        assert before and after
        cores = (after.cpu_s - before.cpu_s) / (after.t_monotonic_ns - before.t_monotonic_ns) * 1e9
        return cores, kept_after != kept_before

    def throttled() -> str:
        return inside(lab, name, "vcgencmd", "get_throttled").strip()

    assert throttled() == "throttled=0x0"
    inflict(lab, name, "heat", 400.0)  # the air of an oven: no need to wait for the board's own slow warming
    wait_until(lambda: throttled() == "throttled=0x20002")
    frequency = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
    assert int(inside(lab, name, "cat", frequency)) < profiles()["rpi4"]["frequencies_khz"][-1]
    cores, slowed = work()
    assert cores < 1.15 * profiles()["rpi4"]["power"]["throttled_share"] and slowed
    inflict(lab, name, "restore")
    wait_until(lambda: throttled() == "throttled=0x20000")  # what has been since boot stays
    assert not work()[1]


def ssh(spec: TargetSpec, command: str) -> list[str]:
    options = [f"-oUserKnownHostsFile={spec.known_hosts}", f"-p{spec.port}", f"-i{spec.identity_file}"]
    return ["ssh", "-F", "none", *options, f"{spec.user}@{spec.host}", command]


def wait_until(happened: Callable[[], bool], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_when_memory_runs_out_the_kernel_kills_the_benchmark_and_the_agent_says_so(
    lab: LabState, tmp_path: Path
) -> None:
    name = board(lab, "rpi5").name
    bundle = onnx_bundle(tmp_path / "model")
    with connect(board(lab, "rpi5"), state=tmp_path) as device:
        for path in bundle.files:
            device.push(path, digest_of(path))
        need = device.bench(bundle.request(), 120).peak_rss_bytes
        assert not isinstance(need, Absent)
        inflict(lab, name, "memory", 0.9 * need)  # which leaves room for the agent, and none for its child
        with pytest.raises(AgentFailed, match="SIGKILL") as caught:
            device.bench(bundle.request(), 120)
        assert "memory" in caught.value.hint
        inflict(lab, name, "restore")
        assert device.bench(bundle.request(), 120).answer.finite  # the agent outlived its child


def test_nothing_is_left_of_boards() -> None:
    require_lab("ssh", "arm64")
    ensure_emulation("aarch64")
    ensure_tree(ARM64)
    before, name = surroundings(), f"test-{secrets.token_hex(4)}"
    with running(Wanted(counts={"arm64": 2}), name):
        made = lab_namespaces(name)
        assert surroundings() == before
        down(name)
        assert remains(name, made) == []
        assert surroundings() == before


def test_a_whole_run_takes_its_targets_from_the_lab(lab: LabState, tmp_path: Path) -> None:
    """deploy.yaml names no device; float and int8 ONNX go to an x86 host and to an ARM64 board."""
    work = project(tmp_path, recipes=["onnx-float32", "onnx-int8"])
    names = ("pi-0", board(lab, "rpi5").name)
    chosen = [word for name in names for word in ("--target", name)]
    ran = work.run("--targets-from", lab.name, *chosen, "--json", timeout_s=240)
    assert ran.status == 0, ran.err
    for candidate in json.loads(ran.out)["candidates"]:
        assert set(candidate["targets"]) == set(names)
        for result in candidate["targets"].values():
            assert result["answer"]["max_steps"] <= 3
    assert "qemu-user" in (work.folder / "deploy-out" / "report.html").read_text()


def test_profiles_are_taken_in_turn_and_wrong_ones_refused() -> None:
    made = plan(Wanted(counts={"arm64": 3}, profiles=("rpi3", "rpi5")))
    assert [device.name for device in made] == ["rpi3-0", "rpi5-1", "rpi3-2"]
    with pytest.raises(UsageError, match="no profile"):
        plan(Wanted(counts={"arm64": 1}, profiles=("rpi9",)))


def test_a_board_answers_soon_after_its_start() -> None:
    """Not a benchmark: an emulated boot that waits for a time-out somewhere would take tens of seconds."""
    require_lab("ssh", "arm64")
    ensure_tree(ARM64)
    start = time.monotonic()
    with running(Wanted(counts={"arm64": 1}), f"test-{secrets.token_hex(4)}"):
        assert time.monotonic() - start < 60
