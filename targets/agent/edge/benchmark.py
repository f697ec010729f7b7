"""One benchmark in a child process, watched: its turn on the device, its deadline, its end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

from .blobs import Blobs
from .facts import conditions, emulation
from .files import sha256_of
from .governor import governed, restore
from .watching import LOOK_S, Watch
from .wire import Json, Link, Refused

STDERR_TAIL_BYTES = 4000
FIELDS = ("format", "threads", "warm_max_s", "warm_min_samples", "warm_max_samples")
PURPOSES = ("profile", "pipeline", "distances")  # of a run that is no benchmark


class Benchmark:
    """Runs benchmarks for one session; `program` is the file that this agent was started from."""

    def __init__(self, blobs: Blobs, link: Link, program: Path) -> None:
        self.blobs, self.link, self.program = blobs, link, program
        self.child: subprocess.Popen[bytes] | None = None

    def bench(self, request: Json) -> Json:
        job = {key: request[key] for key in FIELDS}
        job.update({key: request[key] for key in ("pause_s", "cpus") if request.get(key)})
        more = ("raw", "given") if request.get("pipeline") else ()
        for role in ("blob", "inputs", "expected", *more):
            job[role] = str(self.checked(role, request[role]))
        for digest in request.get("beside", ()):  # the model asks for it under this name, in the folder that it is in
            self.checked("weights", digest)
        job["power"] = request.get("power")
        deadline = time.monotonic() + request["deadline_s"]
        with (self.blobs.root / "bench.lock").open("w", encoding="utf-8") as lock:
            waited_s = self.take_turn(lock.fileno(), deadline)
            restore(self.blobs.root)
            purpose = {key: request[key] for key in PURPOSES if request.get(key)}
            if purpose:
                return self.run_child({**job, **purpose}, deadline, Watch())
            with governed(self.blobs.root, request.get("governor", "")):
                seen = conditions("before")
                watch = Watch()
                watch.begin()
                result = self.run_metered(job, deadline, watch)
                seen.update(watch.end())
                seen.update(conditions("after"))
        if waited_s >= 1:
            seen["waited_for_other_benchmark_s"] = "%.0f" % waited_s
        if emulated := emulation():
            seen["emulated"] = emulated
        seen["cpus_allowed"] = ",".join(map(str, request.get("cpus") or ())) or str(len(os.sched_getaffinity(0)))
        seen.update(result.pop("conditions"))
        return {**result, "conditions": seen}

    def checked(self, role: str, digest: str) -> Path:
        """A stored file, after a look at every byte: flash storage rots; the digest is the evidence."""
        path = self.blobs.blob(digest)
        if not path.is_file():
            raise Refused("agent", "the %s %s is not on the device; push it first" % (role, digest))
        if sha256_of(path) != digest:
            path.unlink()
            raise Refused("hash-mismatch", "the stored %s %s has changed; push it again" % (role, digest))
        return path

    def take_turn(self, lock_fd: int, deadline: float) -> float:
        """Wait until no other session benchmarks here: two at once would measure each other."""
        start = time.monotonic()
        while True:
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return time.monotonic() - start
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Refused("timeout", "another benchmark held this device all the time") from None
            if select.select([self.link.fd], [], [], 0.2)[0]:
                self.link.read_more()

    def run_metered(self, job: Json, deadline: float, watch: Watch) -> Json:
        """The benchmark, with a power sensor read at its side when one is to be."""
        reading = (job.get("power") or {}).get("reading")
        if not reading:
            return self.run_child(job, deadline, watch)
        from .power import Sampler

        sampler = Sampler(reading)
        sampler.start()
        try:
            result = self.run_child(job, deadline, watch)
        finally:
            readings = sampler.stop()
        return {**result, "readings": readings}

    def run_child(self, job: Json, deadline: float, watch: Watch) -> Json:
        """Run the benchmark in a fresh process, watching for its end, its deadline and the host's disappearance."""
        with (self.blobs.parts / "bench.stderr").open("w+b") as stderr:
            argv = [sys.executable, "-I", str(self.program), "--bench"]
            self.child = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
            )
            assert self.child.stdin and self.child.stdout
            output = b""
            try:
                try:
                    self.child.stdin.write(json.dumps(job).encode())
                    self.child.stdin.close()
                except BrokenPipeError:
                    pass  # it died at once; its end is reported below
                while True:
                    left_s = deadline - time.monotonic()
                    if left_s <= 0:
                        raise Refused("timeout", "the benchmark outlived its deadline; " + stage_text(output))
                    results_fd = self.child.stdout.fileno()
                    ready = select.select([self.link.fd, results_fd], [], [], min(left_s, LOOK_S))[0]
                    watch.look()
                    if self.link.fd in ready:
                        self.link.read_more()
                    if results_fd in ready:
                        chunk = os.read(results_fd, 1 << 20)
                        if not chunk:
                            break
                        output += chunk
                status = self.child.wait(timeout=max(1.0, deadline - time.monotonic()))
            finally:
                self.kill_child()
            stderr.seek(0)
            noise = stderr.read(1 << 20).decode("utf-8", "replace")
        return judge_child(status, output, noise)

    def kill_child(self) -> None:
        child, self.child = self.child, None
        if child is None:
            return
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def records_of(output: bytes) -> Iterator[Json]:
    for line in output.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # the last line of a process that died while writing it


def stage_text(output: bytes) -> str:
    stages = [record["stage"] for record in records_of(output) if "stage" in record]
    return "it was at: %s" % (stages[-1] if stages else "starting")


def judge_child(status: int, output: bytes, noise: str) -> Json:
    """The child's result, or the refusal that says how it ended."""
    last = noise[-STDERR_TAIL_BYTES:].strip()
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "signal %d" % -status
        raise Refused("agent", "the benchmark process was killed by %s; %s" % (name, stage_text(output)), stderr=last)
    for record in records_of(output):
        if "error" in record:
            raise Refused(**record["error"])
        if "result" in record:
            result: Json = record["result"]
            # The runtime says which delegate it made only on stderr; whether it took any op, the interpreter says.
            named = re.search(r"Created TensorFlow Lite (\w+) delegate", noise)
            if result.pop("delegated"):
                result["delegate"] = named.group(1) if named else "unnamed"
            return result
    raise Refused("agent", "the benchmark process ended with status %d; %s" % (status, stage_text(output)), stderr=last)
