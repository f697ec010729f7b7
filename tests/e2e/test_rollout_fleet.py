"""A hundred hosts on a bad day: whatever happens to links, disks and the controller, each ends proved on a release."""

import json
import secrets
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labs import require_lab, running
from projects import DEPLOY, Project, project
from release_files import write_release
from tiny_models import Bundle

from pipeline.rehearsal.outcome import half_written
from targets.device import connect
from targets.lab.faults import inflict
from targets.lab.lab import Wanted, command_inside
from targets.lab.state import LabState, load_lab
from targets.records import BenchRequest

HOSTS = 100
OFF = ("pi-10", "pi-20", "pi-30")
DARK = ("pi-11", "pi-21")
FULL, READ_ONLY, OTHER_KEY, REBOOTING = "pi-12", "pi-13", "pi-14", "pi-15"
CUT = ("pi-16", "pi-26", "pi-36", "pi-46", "pi-56")
ROOT = "/home/pi/.edge-deploy"


@pytest.fixture(scope="module")
def lab() -> Iterator[LabState]:
    require_lab("ssh")
    with running(Wanted(counts={"ssh": HOSTS}, disk_bytes=16_000_000), f"test-{secrets.token_hex(4)}") as started:
        yield started


def weighty(folder: Path, seed: int) -> Bundle:
    """y = x · w, with 200 kB of weights that no compression makes less: long enough to be cut in the middle."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    weights = random.normal(size=(100, 500)).astype(np.float32)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in (("x", 100), ("y", 500))
    ]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "w", ends[:1], ends[1:], initializer=[numpy_helper.from_array(weights, "w")])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    assert onnx.load_model_from_string(data)
    x = random.normal(size=(1, 100)).astype(np.float32)
    folder.mkdir()
    bundle = Bundle("onnx", folder / "model.onnx", folder / "inputs.npz", folder / "expected.npz")
    bundle.model.write_bytes(data)
    np.savez(bundle.inputs, x=x)
    np.savez(bundle.expected, y=onnxruntime.InferenceSession(data).run(None, {"x": x})[0])
    return bundle


def fleet(folder: Path, lab: LabState) -> Project:
    targets = {
        spec.name: {
            **{key: getattr(spec, key) for key in ("host", "port", "user", "identity_file", "known_hosts", "python")},
            "ssh_config": "/dev/null",
            "connect_timeout": "5 s",
            "step_timeout": "60 s",
        }
        for spec in lab.target_specs()
    }
    rollout = {"soak": 0, "retry": "0.5 s", "compare_blocks": 0, "parallel": 12, "max_failures": "20 %"}
    made = project(folder, targets=targets, rollout=rollout, measure={"warm": "20 ms"})
    made.write()
    return made


def start(work: Project, *words: str) -> "subprocess.Popen[str]":
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(**{**work.command(), "args": [*DEPLOY, *words, "--json"], **streams})


def deploy(work: Project, *words: str) -> tuple[int, Any, str]:
    with start(work, *words) as process:
        out, err = process.communicate(timeout=400)
    assert "Traceback" not in err, err
    return process.returncode, json.loads(out) if out else None, err


def count(work: Project, where: str) -> int:
    with closing(sqlite3.connect(work.state / "journal.db", timeout=30)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM steps WHERE {where}").fetchone()[0])


def killed_once(work: Project, bundle: Path, ready: Callable[[], bool], meanwhile: Callable[[], None]) -> None:
    """A push whose controller dies as soon as the journal says so."""
    with start(work, "push", "--release", str(bundle)) as process:
        end = time.monotonic() + 300
        while not ready():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            meanwhile()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()


def shell(lab: LabState, name: str, script: str, data: bytes = b"") -> bytes:
    command = command_inside(lab, name, ["sh", "-c", script])
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def everywhere(lab: LabState, script: str, data: bytes = b"") -> dict[str, str]:
    names = [device.name for device in lab.devices]
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda name: shell(lab, name, script, data).decode(), names))
    return dict(zip(names, said, strict=True))


def test_a_hundred_hosts_on_a_bad_day(lab: LabState, tmp_path: Path) -> None:
    models = {number: weighty(tmp_path / str(number), number) for number in (1, 2)}
    old, new = (
        write_release(tmp_path / f"{number}.release", {"default": model}, sequence=number)
        for number, model in models.items()
    )
    work = fleet(tmp_path / "work", lab)
    # The old release: pushed to one of them, and its store given to the others as it is.
    code, first, _ = deploy(work, "push", "--release", str(tmp_path / "1.release"), "--target", "pi-0")
    assert code == 0 and first["release"] == old
    everywhere(lab, "su pi -c 'tar -xf - -C /home/pi'", shell(lab, "pi-0", "tar -cf - -C /home/pi .edge-deploy"))

    for name in OFF[:2]:
        inflict(lab, name, "refuse")
    inflict(lab, OFF[2], "blackhole")
    for name in DARK:
        inflict(lab, name, "blackhole-after", 120_000)
    for name in CUT:
        inflict(lab, name, "cut-after", 120_000)
    inflict(lab, FULL, "full")
    inflict(lab, READ_ONLY, "readonly")
    inflict(lab, OTHER_KEY, "hostkey")
    rebooted: list[str] = []

    def reboot_in_the_middle() -> None:
        if not rebooted and count(work, f"device='{REBOOTING}' AND step='activate' AND release='{new}'"):
            rebooted.append(REBOOTING)
            inflict(lab, REBOOTING, "reboot", 1.0)

    bundle = tmp_path / "2.release"
    done = f"release='{new}' AND outcome='ok' AND step="
    killed_once(work, bundle, lambda: count(work, done + "'activate'") >= 4, reboot_in_the_middle)
    killed_once(work, bundle, lambda: bool(rebooted) and count(work, done + "'activate'") >= 30, reboot_in_the_middle)
    code, result, said = deploy(work, "push", "--release", str(bundle))
    assert code == 3, said  # some devices have troubles of their own; the release has none
    members = {member["device"]: member for member in result["members"]}
    assert result["state"] == "done" and len(members) == HOSTS
    states = {name: member["state"] for name, member in members.items()}
    troubled = {**dict.fromkeys((*OFF, *DARK), "pending"), **dict.fromkeys((FULL, READ_ONLY, OTHER_KEY), "failed")}
    wanted = {name: troubled.get(name, "confirmed") for name in members}
    wrong = {name: members[name] for name in members if states[name] != wanted[name]}
    assert not wrong, wrong
    codes = {name: members[name]["code"] for name in (FULL, READ_ONLY, OTHER_KEY)}
    assert codes == {FULL: "disk-full", READ_ONLY: "read-only", OTHER_KEY: "host-key"}
    assert [name for name in troubled if not (members[name]["reason"] and members[name]["hint"])] == []
    assert repeated(work, new) == []

    for name in (*OFF, *DARK, FULL, READ_ONLY, OTHER_KEY):
        inflict(lab, name, "restore")
    lab = load_lab(lab.name)
    where = everywhere(lab, f"readlink {ROOT}/current; cd {ROOT}/releases; ls -A; find {ROOT}/blobs -name '*.part'")
    for name, told in where.items():
        current, *rest = told.split()
        assert current == f"releases/{new if states[name] == 'confirmed' else old}", (name, told)
        assert set(rest) <= {old, new}, (name, told)
        assert half_written(lab, name) == ()

    code, results, said = deploy(work, "reconcile")
    assert code == 0, said
    assert {m["device"]: m["state"] for r in results for m in r["members"]} == dict.fromkeys((*OFF, *DARK), "confirmed")
    code, rows, _ = deploy(work, "status", "--offline")
    refused = {row["device"] for row in rows if row["state"] == "refused"}
    assert refused == {FULL, READ_ONLY, OTHER_KEY} and len(rows) == HOSTS and all(row["reason"] for row in rows)
    for name in (FULL, OTHER_KEY, REBOOTING, OFF[0], DARK[0], CUT[0]):
        assert steps_off(lab, name, models[1 if name in refused else 2], tmp_path) <= 3


def repeated(work: Project, release: str) -> list[str]:
    query = (
        f"SELECT device FROM steps WHERE step='activate' AND outcome='ok' AND release='{release}' "
        f"AND device<>'{REBOOTING}' GROUP BY device HAVING count(*) > 1"
    )
    with closing(sqlite3.connect(work.state / "journal.db")) as connection:
        return [name for (name,) in connection.execute(query)]


def steps_off(lab: LabState, name: str, model: Bundle, state: Path) -> float:
    """How far the device's answer is from the host's, asked past the rollout."""
    (spec,) = (one for one in lab.target_specs() if one.name == name)
    request: BenchRequest = model.request(warm_max_s=0.01)
    with connect(spec, state=state) as device:
        return device.bench(request, 60).answer.max_steps
