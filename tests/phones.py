"""Phones for tests of everything that goes over adb: the lab's Python adb daemon on this machine's own files."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adb_client import Adb, adb_server


@contextmanager
def phone(folder: Path) -> Iterator[tuple[Adb, int]]:
    """An adb server of its own and the port of a phone; needs no privileges. The phone's root folder is `/`."""
    with adb_server(folder) as adb:
        argv = [sys.executable, "-m", "targets.lab.adbd", "--root", "/", "--port", "0"]
        daemon = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
        try:
            assert daemon.stdout
            yield adb, int(daemon.stdout.readline().split()[-1])
        finally:
            daemon.kill()
            daemon.communicate()
