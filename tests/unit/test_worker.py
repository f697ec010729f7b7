"""The child process that converters run in: whatever they do to it, the parent gets an error with their last words."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import HostDiskFull, InputError
from pipeline.worker import JobRaised, Worker, WorkerDied

_JOBS = """
import ctypes, errno, os, signal, sys, time
from pipeline.errors import InputError

def pid(*, report):
    return os.getpid()

def count(*, to, report):
    for number in range(to):
        report(number + 1, to)
    return list(range(to))

def abort(*, report):
    print("loading the graph")
    print("CHECK failed: rank == 4", file=sys.stderr)
    sys.stderr.flush(); sys.stdout.flush()
    os.abort()

def fault(*, report):
    ctypes.string_at(0)

def leave(*, report):
    sys.exit(3)

def killed(*, report):
    os.kill(os.getpid(), signal.SIGKILL)

def hang(*, report):
    time.sleep(60)

def refuse(*, report):
    print("a line of the converter", flush=True)
    raise RuntimeError("op Foo is not supported\\n  at great length")

def silent(*, report):
    raise ValueError

def ours(*, report):
    raise InputError("net.onnx: empty", hint="fetch it")

def full(*, scratch, report):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def denied(*, report):
    raise PermissionError(errno.EACCES, "Permission denied", "/x")

def lambdas(*, report):
    return lambda: None

def shout(*, report):
    for number in range(5000):
        print("line", number)
    raise RuntimeError("enough")

def where(*, report):
    import pipeline
    return pipeline.__file__, sys.stdin.read(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    (tmp_path / "jobs.py").write_text(_JOBS)
    monkeypatch.chdir(tmp_path)  # the child has the folder it is started in on its path
    with Worker(timeout_s=20) as running:
        yield running


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_child_does_all_jobs_and_ends_with_the_worker(worker: Worker) -> None:
    first = worker.call("jobs:pid")
    assert worker.call("jobs:pid") == first != os.getpid()
    seen: list[tuple[int, int]] = []
    assert worker.call("jobs:count", lambda *progress: seen.append(progress), to=3) == [0, 1, 2]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    worker.close()
    assert not alive(first)
    worker.close()
    assert worker.call("jobs:pid") != first


@pytest.mark.parametrize(
    ("job", "said", "killed"),
    [
        ("abort", "the converter process died of SIGABRT", False),
        ("fault", "the converter process died of SIGSEGV", False),
        ("leave", "the converter process exited with status 3", False),
        ("killed", "the converter process died of SIGKILL", True),
        ("lambdas", "the converter process exited with status 1", False),
    ],
)
def test_a_death_is_told_and_the_next_job_gets_a_new_child(worker: Worker, job: str, said: str, killed: bool) -> None:
    before = worker.call("jobs:pid")
    with pytest.raises(WorkerDied) as caught:
        worker.call(f"jobs:{job}")
    assert caught.value.message == said
    assert caught.value.killed is killed
    assert ("lack of memory" in caught.value.hint) is killed
    if job == "abort":
        assert caught.value.last_output[:2] == ("loading the graph", "CHECK failed: rank == 4")
    assert not alive(before)
    assert worker.call("jobs:count", to=1) == [0]


def test_a_job_that_says_nothing_for_too_long_is_ended(worker: Worker) -> None:
    with Worker(timeout_s=1.5) as impatient:
        pid = impatient.call("jobs:pid")
        with pytest.raises(WorkerDied, match="gave no sign of life for 2 s") as caught:
            impatient.call("jobs:hang")
        assert caught.value.killed
        assert not alive(pid)


def test_what_a_library_raises_keeps_the_child(worker: Worker) -> None:
    pid = worker.call("jobs:pid")
    with pytest.raises(JobRaised) as caught:
        worker.call("jobs:refuse")
    assert caught.value.message == "RuntimeError: op Foo is not supported"
    assert caught.value.last_output[0] == "a line of the converter"
    with pytest.raises(JobRaised, match=r"^ValueError$") as caught:
        worker.call("jobs:silent")
    assert "a line of the converter" not in caught.value.last_output
    with pytest.raises(JobRaised, match="PermissionError"):
        worker.call("jobs:denied")
    with pytest.raises(JobRaised, match="ModuleNotFoundError"):
        worker.call("nowhere:job")
    assert worker.call("jobs:pid") == pid


def test_our_own_errors_come_over_whole(worker: Worker) -> None:
    with pytest.raises(InputError) as caught:
        worker.call("jobs:ours")
    assert (caught.value.message, caught.value.hint) == ("net.onnx: empty", "fetch it")


def test_a_full_disk_is_no_fault_of_the_converter(worker: Worker) -> None:
    with pytest.raises(HostDiskFull, match="no space left on this host's disk for /scratch/here") as caught:
        worker.call("jobs:full", scratch=Path("/scratch/here"))
    assert "TMPDIR" in caught.value.hint


def test_only_the_last_lines_are_kept(worker: Worker) -> None:
    with pytest.raises(JobRaised) as caught:
        worker.call("jobs:shout")
    assert len(caught.value.last_output) == 20
    assert caught.value.last_output[-1] == "RuntimeError: enough"


def test_the_child_cannot_be_confused_by_where_the_user_stands(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    file, stdin, ignores_interrupt = worker.call("jobs:where")
    assert not Path(file).is_relative_to(tmp_path)
    assert stdin == ""
    assert ignores_interrupt


def test_the_child_does_not_outlive_a_killed_parent(worker: Worker, tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the kernel's help is Linux's")
    script = (
        "from pipeline.worker import Worker\n"
        "worker = Worker()\n"
        "print(worker.call('jobs:pid'), flush=True)\n"
        "worker.call('jobs:hang')\n"
    )
    parent = subprocess.Popen([sys.executable, "-P", "-c", script], stdout=subprocess.PIPE, cwd=tmp_path)
    assert parent.stdout
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while alive(child) and Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end, "the worker's child lives on"
        time.sleep(0.02)
