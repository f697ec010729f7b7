"""Releases onto many devices: against Fabric, a Paramiko pool, parallel-ssh, asyncssh, pyinfra and OpenSSH's `cat >`.

Needs root for the device lab, and PyPI once for the other tools, which get an environment of their own. All sides push
to the same hosts in turns. `--row NAME` measures one of: first, unchanged, recalibrated, large, trip, memory,
blackhole, growth.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import paramiko

from benchmarks.fleet_recalibrated import recalibrated
from benchmarks.fleet_release import proved_everywhere, pushed_again
from benchmarks.pairs import Row, absent, at_least, at_most, in_turns, main, middle
from targets.cache import cache_folder, ensure
from targets.device import Device, connect
from targets.errors import DeviceError
from targets.lab.doctor import findings
from targets.lab.faults import inflict
from targets.lab.lab import Wanted, down, up
from targets.lab.state import LabState
from targets.records import TargetSpec

_NAME = f"fleet-{os.getpid()}"
_HOSTS = 100
_MANY_HOSTS = 250
_MODEL_BYTES = 5_000_000
_LARGE_BYTES = 50_000_000
_TOOLS = ("fabric", "parallel-ssh", "asyncssh", "pyinfra")
_PEER = Path(__file__).with_name("fleet_peer.py")


@contextmanager
def _lab(hosts: int) -> Iterator[tuple[LabState, list[TargetSpec], Path]]:
    """Hosts that have the agent, as a fleet has after its first day."""
    lab = up(_NAME, Wanted(counts={"ssh": hosts}))
    try:
        with TemporaryDirectory() as folder:
            specs = [replace(spec, connect_timeout_s=60.0) for spec in lab.target_specs()]
            _push(specs, Path(folder), _model(Path(folder) / "first", 1000))
            yield lab, specs, Path(folder)
    finally:
        down(_NAME)


def _first(times: int) -> Iterator[Row]:
    with _lab(_HOSTS) as (_, specs, folder):
        sides: dict[str, Callable[[], float]] = {
            "ours": lambda: _push(specs, folder, _model(folder / "model", _MODEL_BYTES)),
            "paramiko": lambda: _paramiko(specs, _model(folder / "model", _MODEL_BYTES)),
        }
        for tool in _TOOLS[:3]:
            sides[tool] = partial(_pushed_anew, tool, specs, folder)
        found = {name: middle(samples) for name, samples in in_turns(sides, times).items()}
        for name in list(sides)[1:]:
            bar = found[name] if name == "paramiko" else None
            named = f"{_HOSTS} hosts, 5 MB, hash on the device, against {name}"
            yield _against(named, found["ours"], found[name], bar)


def _pushed_anew(tool: str, specs: list[TargetSpec], folder: Path) -> float:
    return _tool(tool, specs, _model(folder / "model", _MODEL_BYTES))


def _against(name: str, value: float, peer: float, bar: float | None) -> Row:
    return Row(name=name, value=value, unit="s", peer=peer, bar=bar, ok=None if bar is None else value <= bar)


def _unchanged(times: int) -> Iterator[Row]:
    with _lab(_HOSTS) as (_, specs, folder):
        files = _model(folder / "model", 1_000_000)
        release = proved_everywhere(specs, folder, files)
        sides = {
            "ours": lambda: pushed_again(specs, folder, release),
            "pyinfra": lambda: _tool("pyinfra", specs, files, keep=True),
            "a login": lambda: _on_each(specs, lambda spec: _run(spec, "true")),
        }
        sides["pyinfra"]()  # from now on it is there
        found = in_turns(sides, times)
        peer, login = middle(found["pyinfra"]), middle(found["a login"])
        yield _against(
            f"{_HOSTS} hosts, nothing changed, against logging in with Paramiko", middle(found["ours"]), login, None
        )
        yield _against(f"{_HOSTS} hosts, nothing changed, against pyinfra", middle(found["ours"]), peer, 0.15 * peer)


def _recalibrated(_: int) -> Iterator[Row]:
    """All that the hosts' network cards received, the logins with it."""
    name = f"{_HOSTS} hosts, re-calibrated EfficientNet-Lite0, bytes on the wire as a share of the first release's"
    with _lab(_HOSTS) as (_state, specs, folder):
        try:
            first, second = recalibrated(folder)
        except (RuntimeError, OSError) as error:
            yield absent(name, "", str(error))
            return
        received = []
        for path, bases in ((first, {}), (second, _named(first))):
            before = _received_bytes(specs)
            _send(specs, folder, _named(path), bases)
            received.append(_received_bytes(specs) - before)
        if received[0] < _HOSTS * first.stat().st_size:
            raise RuntimeError(f"the hosts have counted {received} bytes: too few")
    yield at_most(name, received[1] / received[0], "", 0.15)


def _received_bytes(specs: list[TargetSpec]) -> int:
    """By the hosts' own counts; /sys would show this machine's network."""

    def received(spec: TargetSpec) -> int:
        return int(_run(spec, "cat /proc/net/dev").decode().partition("eth0:")[2].split()[0])

    with ThreadPoolExecutor(len(specs)) as pool:
        return sum(pool.map(received, specs))


def _large(times: int) -> Iterator[Row]:
    with _lab(1) as (_, specs, folder):
        yield _against_cat("on loopback", specs[0], folder, times)


def _trip(times: int) -> Iterator[Row]:
    with _lab(1) as (lab, specs, folder):
        for trip_ms in (20, 100):
            inflict(lab, specs[0].name, "delay", trip_ms / 2000)
            yield _against_cat(f"at {trip_ms} ms of round trip", specs[0], folder, times)


def _memory(_: int) -> Iterator[Row]:
    with _lab(_MANY_HOSTS) as (_state, specs, folder):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is counted from here
        _push(specs, folder, _model(folder / "model", _MODEL_BYTES))
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak_mb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024 / 1e6
    yield at_most(f"memory of the controller, {_MANY_HOSTS} hosts at once", peak_mb, "MB", 200.0)


def _blackhole(times: int) -> Iterator[Row]:
    """Counted from the last byte that this host's own system took."""
    with _lab(1) as (lab, specs, folder):
        noticed = []
        for _ in range(times):
            files = _model(folder / "large", _LARGE_BYTES)
            inflict(lab, specs[0].name, "blackhole-after", _LARGE_BYTES // 3)
            last: list[float] = []
            with connect(specs[0], state=folder) as device:
                try:
                    device.releases.transfer(files, progress=lambda *_, last=last: last.append(time.monotonic()))
                except DeviceError:
                    noticed.append(time.monotonic() - last[-1])
                else:
                    raise RuntimeError("the push outran the fault")
            inflict(lab, specs[0].name, "restore")
        yield at_most("black hole in the middle of a push noticed", middle(noticed), "s", 5.0)


def _growth(times: int) -> Iterator[Row]:
    """Per host, a large fleet takes no longer than a small one."""
    with _lab(_MANY_HOSTS) as (_, specs, folder):

        def each(count: int) -> float:
            return _push(specs[:count], folder, _model(folder / "model", _MODEL_BYTES)) / count * 1000

        few, *more = (10, 50, _MANY_HOSTS)
        turns = in_turns({str(count): partial(each, count) for count in (few, *more)}, times)
        per_host = middle(turns[str(few)])
        for count in more:
            found = middle(turns[str(count)])
            yield at_most(f"5 MB, time per host, {count} against {few} hosts", found, "ms", per_host, per_host)


_ROWS: Mapping[str, Callable[[int], Iterator[Row]]] = {
    "first": _first,
    "unchanged": _unchanged,
    "recalibrated": _recalibrated,
    "large": _large,
    "trip": _trip,
    "memory": _memory,
    "blackhole": _blackhole,
    "growth": _growth,
}


def rows(times: int, names: tuple[str, ...] = tuple(_ROWS)) -> Iterator[Row]:
    if missing := [finding.missing for finding in findings("ssh")]:
        yield absent("fleet", "s", f"missing {', '.join(missing)}")
        return
    for name in names:
        yield from _ROWS[name](times)


def _peers() -> Path:
    """The Python of an environment that has the other tools."""

    def build(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        # The venv is renamed once it is whole: its scripts name its old place, its interpreter works from any.
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *_TOOLS], check=True, stdout=sys.stderr)

    return ensure(cache_folder("benchmarks") / "fleet-peers", build) / "bin" / "python"


def _tool(name: str, specs: list[TargetSpec], files: dict[str, Path], keep: bool = False) -> float:
    ((digest, path),) = files.items()
    hosts = [{"host": s.host, "port": s.port, "user": s.user, "key": s.identity_file} for s in specs]
    job = {"hosts": hosts, "known_hosts": specs[0].known_hosts, "path": str(path), "digest": digest}
    done = subprocess.run(
        [str(_peers()), str(_PEER), name], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    if not keep:
        _on_each(specs, lambda spec: _run(spec, "rm -f peer"))
    return float(done.stdout.splitlines()[-1])


def _model(path: Path, size: int) -> dict[str, Path]:
    path.write_bytes(os.urandom(size))
    return _named(path)


def _named(path: Path) -> dict[str, Path]:
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path}


def _on_each(specs: list[TargetSpec], work: Callable[[TargetSpec], object]) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(len(specs)) as pool:
        list(pool.map(work, specs))
    return time.perf_counter() - start


def _send(specs: list[TargetSpec], folder: Path, files: dict[str, Path], bases: dict[str, Path]) -> float:
    def send(spec: TargetSpec) -> None:
        with connect(spec, state=folder) as device:
            device.releases.transfer(files, bases)

    return _on_each(specs, send)


def _push(specs: list[TargetSpec], folder: Path, files: dict[str, Path]) -> float:
    took = _send(specs, folder, files, {})
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


def _run(spec: TargetSpec, command: str) -> bytes:
    with _client(spec) as client:
        said: bytes = client.exec_command(command)[1].read()
    return said


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


def _against_cat(where: str, spec: TargetSpec, folder: Path, times: int) -> Row:
    """By the ratio of each pair, since a neighbour's load falls on both of a pair."""
    known = f"UserKnownHostsFile={spec.known_hosts}"
    options = ["-F", "none", "-i", spec.identity_file, "-o", known, "-p", str(spec.port)]
    login = f"{spec.user}@{spec.host}" if spec.user else spec.host

    def cat() -> float:
        path = next(iter(_model(folder / "large", _LARGE_BYTES).values()))
        start = time.perf_counter()
        with path.open("rb") as source:
            subprocess.run(["ssh", *options, login, "cat >large && rm large"], stdin=source, check=True)
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
    ratio = middle([mine / other for mine, other in zip(found["ours"], found["cat"], strict=True)])
    middle(found["ours"]), middle(found["cat"])
    return at_least(f"50 MB {where}, hash on the device, as a share of `ssh cat >`", ratio, "", 0.95)


def _transfer(device: Device, files: dict[str, Path]) -> None:
    device.releases.transfer(files)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--row", choices=_ROWS)
    asked, sys.argv[1:] = parser.parse_known_args()
    main(lambda times: rows(times, (asked.row,) if asked.row else tuple(_ROWS)), doc=__doc__, pairs=3)
