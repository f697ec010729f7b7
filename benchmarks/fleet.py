"""Releases onto many devices: first push, nothing changed, one large file; against Paramiko and OpenSSH's `cat >`.

Needs root for the device lab. All sides push to the same hosts in turns. Not here yet: parallel-ssh, asyncssh, pyinfra,
links with a round trip, 250 hosts.
"""

import hashlib
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import paramiko

from benchmarks.pairs import Row, absent, at_least, at_most, in_turns, main, middle
from targets.device import Device, connect
from targets.lab.doctor import findings
from targets.lab.lab import Wanted, down, up
from targets.records import TargetSpec

_NAME = f"fleet-{os.getpid()}"
_HOSTS = 100
_MODEL_BYTES = 5_000_000
_LARGE_BYTES = 30_000_000  # a host of the lab has 64 MB


def rows(times: int) -> Iterator[Row]:
    if missing := [finding.missing for finding in findings("ssh")]:
        yield absent("fleet", "s", f"missing {', '.join(missing)}")
        return
    lab = up(_NAME, Wanted(counts={"ssh": _HOSTS}))
    try:
        with TemporaryDirectory() as folder:
            specs = [replace(spec, connect_timeout_s=30.0) for spec in lab.target_specs()]
            yield from _fleet(specs, Path(folder), times)
            yield from _large(specs[0], Path(folder), times)
    finally:
        down(_NAME)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    yield at_most(f"memory of the controller, {_HOSTS} hosts, Paramiko's own side included", peak_mb, "MB", 200.0)


def _fleet(specs: list[TargetSpec], folder: Path, times: int) -> Iterator[Row]:
    warm = _model(folder / "warm", 1000)
    _push(specs, folder, warm)  # the agent is there from now on, as it is after a fleet's first day
    sides = {
        "ours": lambda: _push(specs, folder, _model(folder / "model", _MODEL_BYTES)),
        "paramiko": lambda: _paramiko(specs, _model(folder / "model", _MODEL_BYTES)),
    }
    found = in_turns(sides, times)
    peer = middle(found["paramiko"])
    yield at_most(f"{_HOSTS} hosts, 5 MB, hash on the device", middle(found["ours"]), "s", peer, peer)
    unchanged = middle([_push(specs, folder, warm) for _ in range(times)])
    yield Row(name=f"{_HOSTS} hosts, nothing changed", value=unchanged, unit="s", peer=None, bar=None, ok=None)


def _model(path: Path, size: int) -> dict[str, Path]:
    path.write_bytes(os.urandom(size))
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path}


def _on_each(specs: list[TargetSpec], work: Callable[[TargetSpec], object]) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(len(specs)) as pool:
        list(pool.map(work, specs))
    return time.perf_counter() - start


def _push(specs: list[TargetSpec], folder: Path, files: dict[str, Path]) -> float:
    def push(spec: TargetSpec) -> None:
        with connect(spec, state=folder) as device:
            device.releases.transfer(files)

    took = _on_each(specs, push)
    for path in files.values():
        if path.stat().st_size >= _MODEL_BYTES:
            _on_each(specs, lambda spec: _remove(spec, folder, files))
    return took


def _remove(spec: TargetSpec, folder: Path, files: dict[str, Path]) -> None:
    _run(spec, " ".join(["rm -f", *(f"{_root(spec)}/blobs/sha256/{digest}" for digest in files)]))


def _root(spec: TargetSpec) -> str:
    return spec.root or "~/.edge-deploy"


def _client(spec: TargetSpec) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.load_host_keys(spec.known_hosts)
    key = {"key_filename": spec.identity_file, "look_for_keys": False, "allow_agent": False}
    client.connect(spec.host, spec.port, spec.user or None, timeout=30, banner_timeout=30, auth_timeout=30, **key)  # type: ignore[arg-type]
    return client


def _run(spec: TargetSpec, command: str) -> None:
    with _client(spec) as client:
        client.exec_command(command)[1].read()


def _paramiko(specs: list[TargetSpec], files: dict[str, Path]) -> float:
    """One thread per host, SFTP as its users write it, and the hash asked of the device."""
    ((digest, path),) = files.items()

    def push(spec: TargetSpec) -> None:
        with _client(spec) as client:
            with client.open_sftp() as sftp:
                sftp.put(str(path), "peer.part")
            said = client.exec_command("sha256sum peer.part && mv peer.part peer")[1].read()
            assert said.decode().startswith(digest)

    took = _on_each(specs, push)
    _on_each(specs, lambda spec: _run(spec, "rm -f peer"))
    return took


def _large(spec: TargetSpec, folder: Path, times: int) -> Iterator[Row]:
    where = [
        "-F",
        "none",
        "-i",
        spec.identity_file,
        "-o",
        f"UserKnownHostsFile={spec.known_hosts}",
        "-p",
        str(spec.port),
    ]
    login = f"{spec.user}@{spec.host}" if spec.user else spec.host

    def cat() -> float:
        path = next(iter(_model(folder / "large", _LARGE_BYTES).values()))
        start = time.perf_counter()
        with path.open("rb") as source:
            subprocess.run(["ssh", *where, login, "cat >large && rm large"], stdin=source, check=True)
        return _LARGE_BYTES / 1e6 / (time.perf_counter() - start)

    def ours() -> float:
        files = _model(folder / "large", _LARGE_BYTES)
        start = time.perf_counter()
        with connect(spec, state=folder) as device:
            _transfer(device, files)
            took = time.perf_counter() - start
        _remove(spec, folder, files)
        return _LARGE_BYTES / 1e6 / took

    found = in_turns({"ours": ours, "cat": cat}, times)
    peer = middle(found["cat"])
    yield at_least("30 MB on loopback, hash on the device", middle(found["ours"]), "MB/s", 0.95 * peer, peer)


def _transfer(device: Device, files: dict[str, Path]) -> None:
    device.releases.transfer(files)


if __name__ == "__main__":
    main(rows, doc=__doc__, pairs=3)
