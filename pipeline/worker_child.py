"""The worker's process: `python -P -m pipeline.worker_child PIPE PARENT`, started by `pipeline.worker.Worker`."""

import ctypes
import errno
import gc
import importlib
import os
import signal
import sys
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import DeployError, HostDiskFull

_PR_SET_PDEATHSIG = 1


def serve(pipe: Connection) -> NoReturn:
    """Take jobs until the pipe closes, then end the process."""

    def report(done: int, total: int) -> None:
        pipe.send(("progress", (done, total)))

    modules = 0
    while True:
        try:
            job, arguments = pipe.recv()
        except EOFError:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)  # taking TensorFlow down in good order costs half a second and serves nobody
        if len(sys.modules) > modules:
            # TensorFlow's converter collects garbage by hand: over the objects of its own modules, 0.2 s each time.
            modules = len(sys.modules)
            gc.freeze()
        try:
            module, _, function = job.partition(":")
            result = getattr(importlib.import_module(module), function)(report=report, **arguments)
            answer = ("result", result)
        except DeployError as error:
            answer = ("ours", error)
        except OSError as error:
            traceback.print_exc()
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            answer = ("ours", _no_space(error, arguments)) if full else ("raised", _described(error))
        except Exception as error:  # whatever a converter raises becomes a failed job, never a lost worker
            traceback.print_exc()
            answer = ("raised", _described(error))
        sys.stdout.flush()
        sys.stderr.flush()
        pipe.send(answer)


def _no_space(error: OSError, arguments: dict[str, Any]) -> HostDiskFull:
    place = error.filename or arguments.get("scratch") or arguments.get("output") or tempfile.gettempdir()
    return HostDiskFull(
        f"no space left on this host's disk for {place}",
        hint="free some space, or choose another folder with --state DIR (TMPDIR for other scratch files), and run "
        "the same command: finished steps are kept",
    )


def _described(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:500]}" if lines else type(error).__name__


def _die_with(parent: int) -> None:
    """Have the kernel end this process when the parent is gone, however it went (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _die_with(int(sys.argv[2]))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # calibration and references must not depend on a GPU
    sys.path.append(str(Path.cwd()))  # `module:function` of the user's own
    serve(Connection(int(sys.argv[1])))
