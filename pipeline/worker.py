"""A child process in which every converter and every model runs, because both abort on real models.

The child is started once, works through jobs one after the other (importing TensorFlow costs more than most
conversions), and is replaced when it dies. A job is `"module:function"` with picklable keyword arguments; the function
gets a `report(done, total)` callback besides. What the child prints goes to a log whose last lines explain a death.
"""

import contextlib
import ctypes
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import ConversionFailed, DeployError

_PR_SET_PDEATHSIG = 1
_LAST_LINES = 20
_LAST_BYTES = 16_384
_POLL_S = 0.1


class WorkerDied(ConversionFailed):
    """The child died in a job: a native abort, or the kernel ran out of memory."""

    code = "worker-died"

    def __init__(self, message: str, *, hint: str = "", last_output: tuple[str, ...] = (), killed: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.last_output = last_output
        self.killed = killed


class JobRaised(ConversionFailed):
    """The job's function raised something that is none of our own errors, such as a converter's refusal."""

    code = "job-raised"

    def __init__(self, message: str, *, hint: str = "", last_output: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.last_output = last_output


class Worker:
    """Use as a context manager; the child is started by the first job and ended on the way out."""

    def __init__(self, *, timeout_s: float = 3600.0) -> None:
        self._timeout_s = timeout_s
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._log: Path | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def call(self, job: str, report: Callable[[int, int], None] | None = None, **arguments: Any) -> Any:
        """Run `job` in the child and return what it returns.

        Raises:
            WorkerDied: the child aborted, was killed, or outlived the time limit; the next call gets a fresh one.
            JobRaised: the function raised an exception of some library.
            DeployError: the function raised one of ours.
        """
        pipe = self._started()
        start = self._log_size()
        try:
            pipe.send((job, arguments))
            waited_s = 0.0
            while True:
                while not pipe.poll(_POLL_S):
                    waited_s += _POLL_S
                    if waited_s > self._timeout_s:
                        raise self._death(start, f"gave no sign of life for {self._timeout_s:.0f} s", killed=True)
                kind, payload = pipe.recv()
                waited_s = 0.0
                if kind == "result":
                    return payload
                if kind == "progress":
                    if report is not None:
                        report(*payload)
                elif kind == "ours":
                    raise payload
                else:
                    raise JobRaised(payload, last_output=self._last_output(start))
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise self._death(start, "") from error
        except KeyboardInterrupt:
            self.close()
            raise

    def close(self) -> None:
        """End the child, politely first."""
        process, pipe, log = self._process, self._pipe, self._log
        self._process = self._pipe = self._log = None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.terminate()
            process.join(2)
            if process.is_alive():
                process.kill()
                process.join()
        if log is not None:
            log.unlink(missing_ok=True)

    def _started(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self.close()
        handle, name = tempfile.mkstemp(prefix="edge-deploy-worker-", suffix=".log")
        os.close(handle)
        self._log = Path(name)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, os.getpid()), daemon=True)
        with _without_main():
            self._process.start()
        theirs.close()
        self._pipe = ours
        return ours

    def _death(self, start: int, reason: str, *, killed: bool = False) -> WorkerDied:
        last_output = self._last_output(start)
        if self._process is not None and not reason:
            self._process.join(5)
            code = self._process.exitcode
            if code is not None and code < 0:
                reason, killed = f"died of {signal.Signals(-code).name}", -code == signal.SIGKILL
            else:
                reason = f"exited with status {code}"
        self.close()
        hint = "it was killed from outside, most likely for lack of memory" if killed else ""
        return WorkerDied(f"the converter process {reason}", hint=hint, last_output=last_output, killed=killed)

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log else 0

    def _last_output(self, start: int) -> tuple[str, ...]:
        if self._log is None:
            return ()
        with self._log.open("rb") as file:
            file.seek(max(start, self._log_size() - _LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        return tuple(line for line in lines if line.strip())[-_LAST_LINES:]


@contextlib.contextmanager
def _without_main() -> Any:
    # multiprocessing would import the parent's main module again in the child; ours has nothing a job needs.
    main = sys.modules["__main__"]
    kept = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(kept)


def _serve(pipe: Connection, log: str, parent: int) -> None:
    """The child: take jobs until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with(parent)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # calibration and references must not depend on a GPU
    sys.path.insert(0, os.getcwd())  # `module:function` of the user's own

    def report(done: int, total: int) -> None:
        pipe.send(("progress", (done, total)))

    while True:
        try:
            job, arguments = pipe.recv()
        except EOFError:
            return
        try:
            module, _, function = job.partition(":")
            result = getattr(importlib.import_module(module), function)(report=report, **arguments)
            answer = ("result", result)
        except DeployError as error:
            answer = ("ours", error)
        except Exception as error:  # whatever a converter raises becomes a failed job, never a lost worker
            traceback.print_exc()
            answer = ("raised", _described(error))
        sys.stdout.flush()
        sys.stderr.flush()
        pipe.send(answer)


def _described(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__


def _die_with(parent: int) -> None:
    """Have the kernel end this process when the parent is gone, however it went (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
