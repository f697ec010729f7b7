"""A device gets its own environment: wheels from here, unpacked and tried there."""

import json
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from labs import require_lab, running
from projects import DEPLOY
from tiny_models import digest_of, onnx_bundle

from targets.device import connect
from targets.errors import AgentFailed, NoRuntime
from targets.lab.lab import Wanted
from targets.provision import provision
from targets.records import Facts, TargetSpec
from targets.wheels import Lock, lock, platforms


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[TargetSpec]]:
    require_lab("ssh", "arm64")
    with running(Wanted(counts={"ssh": 1, "arm64": 1}), "provision-test") as lab:
        yield [replace(spec, python="") for spec in lab.target_specs()]


def test_a_bare_device_runs_models_after_it(hosts: list[TargetSpec], tmp_path: Path) -> None:
    bundle = onnx_bundle(tmp_path)
    for spec in hosts:
        with connect(spec, state=tmp_path) as device:
            facts = device.facts()
            assert "onnxruntime" not in facts.runtimes
            wheels = lock(facts, ["onnxruntime"])
            assert facts.arch in " ".join(wheels.wheels)
            done = provision(device, facts, wheels)
            assert done.made and done.sent_bytes == wheels.size_bytes
        with connect(spec, state=tmp_path) as device:
            assert device.facts().runtimes["onnxruntime"] == done.runtimes["onnxruntime"]
            for path in bundle.files:
                device.push(path, digest_of(path))
            assert device.bench(bundle.request(), 120).answer.max_steps <= 1
            again = provision(device, device.facts(), wheels)
            assert (again.made, again.sent_bytes, again.environment) == (False, 0, done.environment)


def test_what_does_not_import_is_never_put_into_use(hosts: list[TargetSpec], tmp_path: Path) -> None:
    """A runtime whose import is an illegal instruction, as onnxruntime 1.21 is on a Raspberry Pi 4."""
    spec = replace(hosts[0], root="/tmp/other")
    code = "import os, signal; os.kill(os.getpid(), signal.SIGILL)\n"
    bad = wheel(tmp_path, "onnxruntime", {"onnxruntime/__init__.py": code})
    with connect(spec, state=tmp_path) as device:
        facts = device.facts()
        with pytest.raises(NoRuntime, match="illegal instruction") as caught:
            provision(device, facts, locked(bad))
        assert "--package" in caught.value.hint
        escaping = wheel(tmp_path, "onnxruntime", {"../../../escaped.py": ""})
        with pytest.raises(AgentFailed, match="a path that leaves it"):
            provision(device, facts, locked(escaping))
    with connect(spec, state=tmp_path) as device:
        assert device.facts().runtimes == {}


def test_a_c_library_without_wheels_is_said() -> None:
    facts = Facts(
        target="alpine", arch="aarch64", cpu_model="", cpu_features=(), cpu_count=4, os="", kernel="", libc="unknown",
        python="3.12.1", runtimes={}, governor="", free_disk_bytes=0, total_memory_bytes=0, available_memory_bytes=0,
        temperature_c=0.0, meters=(),
    )  # fmt: skip
    with pytest.raises(NoRuntime, match="need glibc"):
        platforms(facts)
    tags = platforms(replace(facts, libc="glibc 2.31"))
    assert tags[0] == "manylinux_2_31_aarch64"
    assert "manylinux_2_32_aarch64" not in tags
    assert "manylinux2014_aarch64" in tags


def test_the_command_tells_every_device(hosts: list[TargetSpec], tmp_path: Path) -> None:
    spec = hosts[0]
    (tmp_path / "deploy.yaml").write_text(
        "source: {model: net.onnx}\ndata: {calibrate: a.npz, test: b.npz}\ntargets:\n"
        f"  pi: {{host: {spec.host}, port: {spec.port}, user: {spec.user}, ssh_config: /dev/null, "
        f"identity_file: {spec.identity_file}, known_hosts: {spec.known_hosts}}}\n"
        "  gone: {host: 127.0.0.1, port: 1, ssh_config: /dev/null}\n"
    )
    argv = [*DEPLOY, "targets", "provision", "--package", "onnxruntime", "--json"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    pi, gone = json.loads(done.stdout)
    assert "onnxruntime" in pi["runtimes"]
    assert gone["code"] == "unreachable"


def wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    path = folder / f"{name}-9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in files.items():
            archive.writestr(inner, text)
        archive.writestr(f"{name}-9.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9\n")
    return path


def locked(path: Path) -> Lock:
    return Lock(
        requirements=("onnxruntime",), wheels={path.name: sha256(path.read_bytes()).hexdigest()}, folder=path.parent
    )
