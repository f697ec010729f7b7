"""The shipped example, as a user runs it, against a real SSH server: two recipes, one target over the network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sshd import Sshd

ROOT = Path(__file__).parents[2]
TARGET = """
targets:
  pi: {{ host: 127.0.0.1, port: {port}, identity_file: {identity}, known_hosts: {known_hosts}, python: {python},
         root: {root}, connect_timeout: 5 s }}
"""


@pytest.fixture(scope="module")
def config(shared_sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with its target replaced by a device behind SSH."""
    folder = tmp_path_factory.mktemp("over-ssh")
    for part in ("models", "calibration_data"):
        (folder / part).symlink_to(ROOT / part)
    example = (ROOT / "deploy.yaml").read_text().partition("targets:")[0]
    target = TARGET.format(
        port=shared_sshd.port,
        identity=shared_sshd.identity,
        known_hosts=shared_sshd.known_hosts,
        python=sys.executable,
        root=folder / "device",
    )
    path = folder / "deploy.yaml"
    path.write_text(example + target)
    return path


def deploy(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("deploy")), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_probe_shows_the_device(config: Path) -> None:
    probed = deploy("targets", "probe", "pi", "--json", cwd=config.parent)
    assert probed.returncode == 0, probed.stderr
    facts = json.loads(probed.stdout)
    assert facts["target"] == "pi"
    assert facts["runtimes"]["ai-edge-litert"] and facts["runtimes"]["onnxruntime"]
    assert facts["free_disk_bytes"] > 0 and facts["python"].startswith("3.")


def test_the_example_over_ssh_and_again(config: Path) -> None:
    words = ("run", "--json", "--recipe", "litert-float32", "--recipe", "litert-int8")
    first = deploy(*words, cwd=config.parent)
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert report["chosen"] == "litert-int8" and report["chosen_by_target"] == {"pi": "litert-int8"}
    for candidate in report["candidates"]:
        result = candidate["targets"]["pi"]
        assert result["answer"]["max_steps"] <= 3
        assert result["warm_ms"]["n"] == len(result["warm_samples_ms"]) >= 3
        assert (config.parent / "device" / "blobs" / "sha256" / candidate["sha256"]).exists()

    stages = [line.split(":")[0] for line in deploy(*words, cwd=config.parent).stderr.splitlines() if "done in" in line]
    assert stages == ["push pi", "measure pi", "gate", "release", "report"]
