"""A child process in which every converter and every model runs, because both abort on real models.

The child is started once, works through jobs one after the other (importing TensorFlow costs more than most
conversions), and is replaced when it dies. A job is `"module:function"` with picklable keyword arguments; the function
gets a `report(done, total)` callback besides. What the child prints goes to a log whose last lines explain a death.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import IO, Any

from pipeline.errors import ConversionFailed

_LAST_LINES = 20
_LAST_BYTES = 16_384
_LEAVE_S = 5.0


class WorkerDied(ConversionFailed):
    """The child died in a job: a native abort, or the kernel ran out of memory."""

    code = "worker-died"

    def __init__(
        self, message: str, *, hint: str = "", last_output: tuple[str, ...] = (), killed: bool = False
    ) -> None:
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
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._log: IO[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

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
            while True:
                if not pipe.poll(self._timeout_s):
                    raise self._death(start, f"gave no sign of life for {self._timeout_s:.0f} s", killed=True)
                kind, payload = pipe.recv()
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
            self._kill()
            raise

    def close(self) -> None:
        """End the child: an idle one leaves by itself when its pipe closes."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LEAVE_S)
        self._kill()

    def _kill(self) -> None:
        process, pipe, log, folder = self._process, self._pipe, self._log, self._folder
        self._process = self._pipe = self._log = self._folder = None
        if pipe is not None:
            pipe.close()
        if process is not None:
            process.kill()
            process.wait()
        if log is not None:
            log.close()
        if folder is not None:
            folder.cleanup()

    def _started(self) -> Connection:
        if self._pipe is not None and self._process is not None and self._process.poll() is None:
            return self._pipe
        self._kill()
        # The child ends with a temporary file of ours open, never with a name left behind.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the child
        # TensorFlow leaves its generated source files where temporary files go.
        self._folder = tempfile.TemporaryDirectory(prefix="edge-deploy-", ignore_cleanup_errors=True)
        ours, theirs = multiprocessing.Pipe()
        with theirs:
            # -P: a folder named `pipeline` or `targets` where the user stands must not replace ours.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.worker_child", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "TMPDIR": self._folder.name},
            )
        self._pipe = ours
        return ours

    def _death(self, start: int, reason: str, *, killed: bool = False) -> WorkerDied:
        last_output = self._last_output(start)
        if self._process is not None and not reason:
            try:
                code = self._process.wait(_LEAVE_S)
            except subprocess.TimeoutExpired:
                code = -signal.SIGKILL
            if code < 0:
                reason, killed = f"died of {signal.Signals(-code).name}", -code == signal.SIGKILL
            else:
                reason = f"exited with status {code}"
        self._kill()
        hint = "it was killed from outside, most likely for lack of memory" if killed else ""
        return WorkerDied(f"the converter process {reason}", hint=hint, last_output=last_output, killed=killed)

    def _log_size(self) -> int:
        return os.fstat(self._log.fileno()).st_size if self._log else 0

    def _last_output(self, start: int) -> tuple[str, ...]:
        if self._log is None:
            return ()
        first = max(start, self._log_size() - _LAST_BYTES)
        # pread, because the child writes through the same file offset.
        lines = os.pread(self._log.fileno(), _LAST_BYTES, first).decode(errors="replace").splitlines()
        return tuple(line for line in lines if line.strip())[-_LAST_LINES:]
