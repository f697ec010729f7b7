"""The system calls that Python has no name for (`os.unshare` and `os.setns` come with 3.12, `mount` never came)."""

import ctypes
import os
import signal
from contextlib import ExitStack
from pathlib import Path

# <sched.h>
NEW_MOUNT, NEW_UTS, NEW_IPC, NEW_PID, NEW_NET = 0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000
# <sys/mount.h>
READ_ONLY, NO_SUID, NO_DEV, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, doing: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{doing}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Leave the namespaces of the given kinds for new ones; a new pid namespace begins with the next child."""
    _check(_libc.unshare(flags), "unshare")


def enter(pid: int, *kinds: str) -> None:
    """Enter the namespaces of a process: "net", "mnt", "uts", "ipc", "pid" (for children), in this order."""
    with ExitStack() as stack:  # open all first: after "mnt" another /proc may be in place
        opened = [stack.enter_context(Path(f"/proc/{pid}/ns/{kind}").open("rb")) for kind in kinds]
        for file in opened:
            _check(_libc.setns(file.fileno(), 0), f"setns {file.name}")


def enter_own_pid_namespace() -> None:
    """Undo `unshare(NEW_PID)` for the children to come; without it a second unshare is refused."""
    enter(os.getpid(), "pid")


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, options: str = "") -> None:
    _check(
        _libc.mount(
            source.encode(), os.fspath(target).encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()
        ),
        f"mount {source} on {target}",
    )


def bind(source: str | Path, target: str | Path) -> None:
    mount(os.fspath(source), target, flags=BIND | RECURSIVE)


def detach(target: str | Path) -> None:
    """Unmount now; what still uses it keeps it until it is done."""
    _check(_libc.umount2(os.fspath(target).encode(), _MNT_DETACH), f"umount {target}")


def end_with_parent() -> None:
    """Be killed when the parent's main thread ends; for use in a child just forked."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
