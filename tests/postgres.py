"""A PostgreSQL server of the test's own: a throw-away cluster in a folder, behind a socket there."""

import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


def programs() -> Path | None:
    """The folder of PostgreSQL's own programs, which Debian keeps out of PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@contextmanager
def postgres() -> Iterator[tuple[str, str]]:
    """A running server: a URL without a password, and the password that it wants."""
    folder = programs()
    if folder is None:
        reason = "no PostgreSQL server here (Debian: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with TemporaryDirectory(prefix="pg-") as made:  # short, because a socket's path may have 107 characters
        root = Path(made)
        as_user = _someone(root)
        password = secrets.token_hex(8)
        (root / "password").write_text(password)
        (root / "password").chmod(0o644)
        data = str(root / "data")

        def run(*argv: str) -> None:
            done = subprocess.run(argv, cwd=root, capture_output=True, text=True, **as_user)
            assert done.returncode == 0, done.stdout + done.stderr

        run(str(folder / "initdb"), "-D", data, "-U", "fleet", "-A", "scram-sha-256", f"--pwfile={root}/password", "-N")
        options = f"-c listen_addresses='' -c unix_socket_directories='{root}' -c fsync=off"
        run(str(folder / "pg_ctl"), "-D", data, "-w", "-l", str(root / "log"), "-o", options, "start")
        try:
            yield f"postgresql://fleet@/postgres?host={root}", password
        finally:
            run(str(folder / "pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")


def _someone(root: Path) -> dict[str, int]:
    """As whom the server runs, which refuses to be root."""
    if os.getuid():
        return {}
    user = pwd.getpwnam("nobody")
    os.chown(root, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid}
