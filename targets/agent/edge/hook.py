"""Programs of the device's owner, such as one that restarts the service; never one that came with a release."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import time
from pathlib import Path

from .releases import Releases
from .wire import Json, Link, Refused

OUTPUT_BYTES = 8000  # the last of what it said
LOOK_S = 0.1  # how often its end is looked for


def hook(request: Json, releases: Releases, link: Link) -> Json:
    """Run argv to its end or to the deadline; ended with all it started in its session when the host is gone."""
    argv, root = request["argv"], releases.root
    check(argv, root)
    environ = {
        **os.environ,
        "EDGE_DEPLOY_ROOT": str(root),
        "EDGE_DEPLOY_CURRENT": str(root / "current"),
        "EDGE_DEPLOY_RELEASE": releases.linked("current"),
    }
    end = time.monotonic() + request["deadline_s"]
    # Into a file, for what the hook starts in the background may keep a pipe open for ever.
    with (releases.blobs.parts / "hook.output").open("w+b") as output:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", env=environ, start_new_session=True
        )
        try:
            while child.poll() is None:
                if time.monotonic() > end:
                    raise Refused("timeout", "%s outlived its deadline of %g s" % (argv[0], request["deadline_s"]))
                if select.select([link.fd], [], [], LOOK_S)[0]:
                    link.read_more()
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - OUTPUT_BYTES))
        return {"exit_code": child.returncode, "output": output.read().decode("utf-8", "replace").strip()}


def check(argv: list[str], root: Path) -> None:
    """Raise unless argv[0] is a program which nobody but root and the login user can have put there."""
    if not argv or not all(isinstance(word, str) for word in argv) or not argv[0].startswith("/"):
        raise Refused("hook-refused", "not an absolute path: %r" % (argv[:1],))
    path = Path(argv[0])
    try:
        real = path.resolve(strict=True)
    except OSError as fault:
        raise Refused("hook-refused", "%s: %s" % (path, fault.strerror)) from None
    if root.resolve() in real.parents:
        raise Refused("hook-refused", "%s lies among what is deployed; the owner's programs lie elsewhere" % path)
    if not (real.is_file() and os.access(str(real), os.X_OK)):
        raise Refused("hook-refused", "%s is not executable" % path)
    for place in (real, *real.parents):
        seen = place.stat()
        sticky = stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX  # as /tmp: one cannot replace others' files
        if seen.st_uid not in (0, os.getuid()) or (seen.st_mode & 0o022 and not sticky):
            raise Refused("hook-refused", "%s can be changed by others than root and this user" % place)
