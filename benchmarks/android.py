"""Android over adb: a push to 20 devices against bare `adb push`, faults reported and mended, and an app of 100 MB.

Needs root for the device lab, and an adb client. It starts a server of its own, at a port of its own. The phones are
scripted ones, whose programs run at this machine's own speed; `--row emulated` pushes to 20 emulated devices with the
genuine daemon, where hashing costs fifty times what it costs a phone's processor. `--row NAME` measures one of: push,
shared, emulated, unchanged, states, cut, app. All twenty phones share this machine's cores, so `push` measures what
everything costs together; behind a link as real ones have it (`shared`), they work while others are served.
"""

import argparse
import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import appcheck
from benchmarks.pairs import ROOT, Row, absent, at_most, deploy, in_turns, main, middle
from targets.device import connect
from targets.errors import DeployError
from targets.lab.doctor import findings
from targets.lab.faults import inflict
from targets.lab.lab import Wanted, down, up
from targets.lab.state import LOOPBACK, LabState
from targets.records import TargetSpec
from targets.transports.adb_attach import serial_of

sys.path.insert(0, str(ROOT / "tests"))  # the small releases are those of the tests

from release_files import write_release
from tiny_models import Bundle, digest_of

_NAME = f"android-{os.getpid()}"
_PHONES = 20
_MODEL_BYTES = 5_000_000
_SHARED_BYTES_PER_S = 40e6  # what a port of USB 2, or a good access point, carries
_UNUSED = {"source": {"model": "-"}, "data": {"calibrate": "-", "test": "-"}}  # by a push, but deploy.yaml has them
_START_S = 20.0


@contextmanager
def _lab(kind: str, count: int) -> Iterator[tuple[LabState, list[TargetSpec], Path]]:
    """Devices that one adb server of ours is connected to, with our folder on them, as after a first day."""
    lab = up(_NAME, Wanted(counts={kind: count}))
    try:
        with TemporaryDirectory() as name, _adb_server(Path(name)):
            folder, specs = Path(name), list(lab.target_specs())
            _push(specs, folder, _model(folder / "first", 1000))
            yield lab, specs, folder
    finally:
        down(_NAME)


@contextmanager
def _adb_server(folder: Path) -> Iterator[None]:
    with socket.socket() as scout:
        scout.bind((LOOPBACK, 0))
        port = scout.getsockname()[1]
    before = {name: os.environ.get(name) for name in ("HOME", "ANDROID_ADB_SERVER_PORT")}
    os.environ |= {"HOME": str(folder), "ANDROID_ADB_SERVER_PORT": str(port)}
    with (folder / "adb.log").open("wb") as log:
        server = subprocess.Popen(["adb", "nodaemon", "server"], stdout=log, stderr=log)
    try:
        _await_port(port)
        yield
    finally:
        server.kill()
        server.wait()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _await_port(port: int) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        with socket.socket() as sock:
            if not sock.connect_ex((LOOPBACK, port)):
                return
        time.sleep(0.02)
    raise RuntimeError("the adb server does not start")


def _first(times: int) -> Iterator[Row]:
    with _lab("adbd", _PHONES) as (_, specs, folder):
        yield from _against_adb(f"{_PHONES} scripted phones", specs, folder, times)


def _shared(times: int) -> Iterator[Row]:
    """Twenty phones on one computer share its USB, or one Wi-Fi: some 40 MB/s, so 2 MB/s each."""
    with _lab("adbd", _PHONES) as (lab, specs, folder):
        for spec in specs:
            inflict(lab, spec.name, "rate", _SHARED_BYTES_PER_S / _PHONES)
        yield from _against_adb(f"{_PHONES} scripted phones behind one link of 40 MB/s", specs, folder, times)


def _emulated(times: int) -> Iterator[Row]:
    with _lab("android", _PHONES) as (_, specs, folder):
        yield from _against_adb(f"{_PHONES} emulated devices", specs, folder, times)


def _against_adb(where: str, specs: list[TargetSpec], folder: Path, times: int) -> Iterator[Row]:
    """By the ratio of each round, since a neighbour's load falls on all of a round."""
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: _push(specs, folder, _model(folder / "model", _MODEL_BYTES)),
        "push": lambda: _bare(specs, folder, ""),
        "hashed": lambda: _bare(specs, folder, "sha256sum"),
    }
    for side in sides.values():
        side()
    found = in_turns(sides, times)
    for name, against, bar in (("push", "`adb push`", 1.2), ("hashed", "`adb push` and `adb shell sha256sum`", None)):
        ratio = middle([ours / theirs for ours, theirs in zip(found["ours"], found[name], strict=True)])
        ok = None if bar is None else ratio <= bar
        told = f"5 MB to {where}, hash on the device, against {against}"
        yield Row(name=f"{told}, times", value=ratio, unit="", peer=None, bar=bar, ok=ok)
    for name in sides:
        print(f"  {name}, s:", file=sys.stderr, end="")
        middle(found[name])


def _unchanged(times: int) -> Iterator[Row]:
    with _lab("adbd", _PHONES) as (_, specs, folder):
        files = _model(folder / "model", _MODEL_BYTES)
        _push(specs, folder, files, keep=True)
        took = middle([_push(specs, folder, files, keep=True) for _ in range(times)])
        yield at_most(f"{_PHONES} phones, nothing changed, each", took / len(specs), "s", 0.1)


def _states(times: int) -> Iterator[Row]:
    """Until the error is raised; the phone is one of which the server knows nothing yet."""
    with _lab("adbd", 1) as (lab, specs, folder):
        spec = specs[0]

        def reported(state: str) -> float:
            _adb("disconnect", serial_of(spec))
            start = time.perf_counter()
            try:
                connect(spec, state=folder).close()
            except DeployError as error:
                print(f"  {state}: {error.message}", file=sys.stderr)
                return time.perf_counter() - start
            raise RuntimeError(f"{state}: it was connected to")

        for fault in ("unauthorized", "offline"):
            inflict(lab, spec.name, fault)
            yield at_most(f"{fault} reported", middle([reported(fault) for _ in range(times)]), "s", 3.0)
            inflict(lab, spec.name, "restore")
        inflict(lab, spec.name, "cut")
        inflict(lab, spec.name, "refuse")
        yield at_most("refused reported", middle([reported("refused") for _ in range(times)]), "s", 3.0)


def _cut(times: int) -> Iterator[Row]:
    """The link is reset in the middle: how often `deploy push` ended with the file there and proved, with no help."""
    with _lab("adbd", 1) as (lab, specs, folder):
        spec, mended = specs[0], 0
        target = {"transport": "adb", "host": spec.host, "port": spec.port}
        rollout = {"soak": 0, "retry": "0.2 s", "compare_blocks": 0}
        config = {"targets": {spec.name: target}, "rollout": rollout, **_UNUSED}
        (folder / "deploy.yaml").write_text(json.dumps(config), encoding="utf-8")
        for number in range(1, times + 1):
            bundle = _large(folder / f"net-{number}")
            write_release(folder / "net.release", {"default": bundle}, sequence=number)
            inflict(lab, spec.name, "cut-after", bundle.model.stat().st_size // 2)
            done = subprocess.run([*deploy(), "push", "--release", "net.release"], cwd=folder, check=False)
            mended += done.returncode == 0 and _there(spec, digest_of(bundle.model))
            inflict(lab, spec.name, "restore")
    value = mended / times
    yield Row(name="cut mid-push, mended and verified", value=value, unit="", peer=None, bar=1.0, ok=value >= 1)


def _large(folder: Path) -> Bundle:
    """y = x · w, of 5 MB that no compression makes less."""
    random = np.random.default_rng()
    weights = random.normal(size=(100, _MODEL_BYTES // 400)).astype(np.float32)
    sizes = {"x": 100, "y": weights.shape[1]}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name, size in sizes.items()]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "w", ends[:1], ends[1:], initializer=[numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder.mkdir()
    x = random.normal(size=(1, 100)).astype(np.float32)
    onnx.save(model, str(folder / "net.onnx"))
    np.savez(folder / "inputs.npz", x=x)
    np.savez(folder / "expected.npz", y=x @ weights)
    names = ("net.onnx", "inputs.npz", "expected.npz")
    return Bundle("onnx", *(folder / name for name in names))


_ROWS: Mapping[str, Callable[[int], Iterator[Row]]] = {
    "push": _first,
    "shared": _shared,
    "emulated": _emulated,
    "unchanged": _unchanged,
    "states": _states,
    "cut": _cut,
    "app": appcheck.rows,
}


def rows(times: int, names: tuple[str, ...] = tuple(_ROWS)) -> Iterator[Row]:
    for name in names:
        kind = "android" if name == "emulated" else "adbd"
        if name != "app" and (missing := [finding.missing for finding in findings(kind)]):
            yield absent(name, "s", f"missing {', '.join(missing)}")
        else:
            yield from _ROWS[name](times)


def _model(path: Path, size: int) -> dict[str, Path]:
    path.write_bytes(os.urandom(size))
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path}


def _on_each(specs: list[TargetSpec], work: Callable[[TargetSpec], object]) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(len(specs)) as pool:
        list(pool.map(work, specs))
    return time.perf_counter() - start


def _push(specs: list[TargetSpec], folder: Path, files: dict[str, Path], *, keep: bool = False) -> float:
    """Everything from nothing: the session too."""

    def push(spec: TargetSpec) -> None:
        with connect(spec, state=folder) as device:
            device.releases.transfer(files)

    took = _on_each(specs, push)
    if not keep:
        _on_each(specs, lambda spec: _remove(spec, files))
    return took


def _bare(specs: list[TargetSpec], folder: Path, after: str) -> float:
    ((digest, path),) = _model(folder / "bare", _MODEL_BYTES).items()
    there = "/data/local/tmp/bare"

    def push(spec: TargetSpec) -> None:
        _adb("-s", serial_of(spec), "push", str(path), there)
        if after:
            said = _adb("-s", serial_of(spec), "shell", f"{after} {there}")
            if not said.startswith(digest):
                raise RuntimeError(f"{spec.name}: another hash: {said!r}")

    took = _on_each(specs, push)
    _on_each(specs, lambda spec: _adb("-s", serial_of(spec), "shell", f"rm {there}"))
    return took


def _adb(*words: str) -> str:
    done = subprocess.run(["adb", *words], capture_output=True, text=True, check=False)
    if done.returncode and words[0] != "disconnect":
        raise RuntimeError(f"adb {shlex.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def _blob(spec: TargetSpec, digest: str) -> str:
    return f"{spec.root or '/data/local/tmp/edge-deploy'}/blobs/sha256/{digest}"


def _remove(spec: TargetSpec, files: dict[str, Path]) -> None:
    _adb("-s", serial_of(spec), "shell", " ".join(["rm -f", *(_blob(spec, digest) for digest in files)]))


def _there(spec: TargetSpec, digest: str) -> bool:
    _adb("connect", serial_of(spec))
    return _adb("-s", serial_of(spec), "shell", f"sha256sum {_blob(spec, digest)}").startswith(digest)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--row", choices=_ROWS)
    asked, sys.argv[1:] = parser.parse_known_args()
    main(lambda times: rows(times, (asked.row,) if asked.row else tuple(_ROWS)), doc=__doc__, pairs=5)
