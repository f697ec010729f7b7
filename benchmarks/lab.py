"""The device lab: 100 SSH hosts in 4 s, a board or a phone in 2 s and 30 MB, everything from nothing in 120 s.

Needs root and, for the start from nothing, Debian's and PyPI's archives. `--pairs` is how often each is started.
"""

import hashlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.pairs import Row, absent, at_most, main, middle
from targets.device import connect
from targets.lab.doctor import findings
from targets.lab.kinds import KINDS
from targets.lab.lab import Wanted, down, up
from targets.lab.state import LOOPBACK, LabDevice
from targets.records import BenchRequest

_NAME = f"bench-{os.getpid()}"
_HOSTS = 100
_BOARDS = 10
_PHONES = 20
_IDLE_S = 1.0  # an emulated sshd needs a moment to end the session that was greeted
# What an adb client says first: "CNXN", version, the largest payload, then length and check sum of its name, magic.
_ADB_NAME = b"host::\0"
_ADB_HELLO = struct.pack("<4s5I", b"CNXN", 0x01000000, 4096, len(_ADB_NAME), sum(_ADB_NAME), 0x4E584E43 ^ 0xFFFFFFFF)


def rows(times: int) -> Iterator[Row]:
    if missing := [finding.missing for kind in KINDS for finding in findings(kind)]:
        yield absent("device lab", "s", f"missing {', '.join(missing)}")
        return
    everything = Wanted(counts=dict.fromkeys(KINDS, 1))
    with TemporaryDirectory() as nothing, _variable("XDG_CACHE_HOME", nothing):
        cold_s, _, _ = _start_and_end(everything, every=True)
    yield at_most("one of every kind, nothing cached", cold_s, "s", 120.0)
    _start_and_end(everything)  # whatever is not in the cache of this user yet
    hosts = [_start_and_end(Wanted(counts={"ssh": _HOSTS})) for _ in range(times)]
    yield at_most(f"{_HOSTS} SSH hosts up", middle([up_s for up_s, _, _ in hosts]), "s", 4.0)
    yield at_most(f"{_HOSTS} SSH hosts down", middle([down_s for _, down_s, _ in hosts]), "s", 3.0)
    yield _told("memory of an SSH host, idle", middle([mb for _, _, mb in hosts]), "MB")
    boards = [_start_and_end(Wanted(counts={"arm64": 1})) for _ in range(times)]
    yield at_most("ARM64 board answers SSH", middle([up_s for up_s, _, _ in boards]), "s", 2.0)
    # Among several, as in all that follows on memory: devices share most of what the first costs with the keeper.
    boards = [_start_and_end(Wanted(counts={"arm64": _BOARDS}), every=True) for _ in range(times)]
    many_mb = middle([mb for _, _, mb in boards])
    yield at_most(f"memory of one of {_BOARDS} ARM64 boards with its sensors, idle", many_mb, "MB", 30.0)
    for kind in ("android", "adbd"):
        phones = [_start_and_end(Wanted(counts={kind: 1})) for _ in range(times)]
        yield at_most(f"{KINDS[kind].title}: one answers adb", middle([up_s for up_s, _, _ in phones]), "s", 2.0)
    phones = [_start_and_end(Wanted(counts={"android": _PHONES}), every=True) for _ in range(times)]
    yield _told(f"{_PHONES} Android devices answer adb", middle([up_s for up_s, _, _ in phones]), "s")
    many_mb = middle([mb for _, _, mb in phones])
    yield at_most(f"memory of one of {_PHONES} Android devices, idle", many_mb, "MB", 30.0)
    medians = list(_medians_of_virtual_machine())
    yield at_most("virtual machine: medians of three runs apart", max(medians) / min(medians) - 1, "", 0.002)


def _told(name: str, value: float, unit: str) -> Row:
    return Row(name=name, value=value, unit=unit, peer=None, bar=None, ok=None)


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _medians_of_virtual_machine() -> Iterator[float]:
    """Of one network in three sessions, by the machine's own clock, in ns."""
    lab = up(_NAME, Wanted(counts={"vm": 1}))
    try:
        with TemporaryDirectory() as folder:
            request, files = _matrix_product(Path(folder))
            spec = replace(lab.target_specs()[0], connect_timeout_s=60.0)
            for _ in range(3):
                with connect(spec, state=Path(folder)) as device:
                    for digest, path in files.items():
                        device.push(path, digest)
                    yield median(device.bench(request, 300).warm_ns)
    finally:
        down(_NAME)


def _matrix_product(folder: Path) -> tuple[BenchRequest, dict[str, Path]]:
    """A network of one matrix product, with a sample and its answer: what to ask, and the files by digest."""
    weight, x = np.eye(96, dtype=np.float32), np.ones((96, 96), np.float32)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    graph = helper.make_graph([node], "product", ends[:1], ends[1:], [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    np.savez(folder / "inputs.npz", x=x)
    np.savez(folder / "expected.npz", y=x @ weight)
    names = ("model.onnx", "inputs.npz", "expected.npz")
    blob, inputs, expected = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names)
    request = BenchRequest(
        blob=blob,
        format="onnx",
        inputs=inputs,
        expected=expected,
        threads=1,
        warm_max_s=0.2,
        warm_min_samples=50,
        warm_max_samples=200,
    )
    return request, {digest: folder / name for digest, name in zip((blob, inputs, expected), names, strict=True)}


def _start_and_end(wanted: Wanted, every: bool = False) -> tuple[float, float, float]:
    """Seconds until the last device has answered, or every one; seconds until all is gone; MB of a device."""
    start = time.perf_counter()
    lab = up(_NAME, wanted)
    try:
        for device in lab.devices if every else lab.devices[-1:]:
            _greet(device)
        up_s = time.perf_counter() - start
        time.sleep(_IDLE_S)
        # Of the keeper's children: the devices, and what serves their sensors.
        memory_mb = (_pss_mb(lab.keeper.pid) - _pss_mb(lab.keeper.pid, 0)) / len(lab.devices)
    finally:
        start = time.perf_counter()
        down(_NAME)
    return up_s, time.perf_counter() - start, memory_mb


def _greet(device: LabDevice) -> None:
    """Exchange the first words; an adb client calls the state after them `device`."""
    with socket.create_connection((LOOPBACK, device.port), timeout=30) as sock, sock.makefile("rb") as answer:
        if device.service == "adb":
            sock.sendall(_ADB_HELLO + _ADB_NAME)
        said = answer.read(24 + 8) if device.service == "adb" else answer.read(7)
        if said != b"SSH-2.0" and not (said.startswith(b"CNXN") and said.endswith(b"device::")):
            raise RuntimeError(f"{device.name} answers {said!r}")


def _pss_mb(pid: int, generations: int = 9) -> float:
    """Memory of a process and of what descends from it, what it shares counted by its share, in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    kib = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    descendants = children if generations else []
    return kib * 1024 / 1e6 + sum(_pss_mb(int(child), generations - 1) for child in descendants)


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=3)
