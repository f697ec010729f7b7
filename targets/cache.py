"""What takes long to make or fetch is kept under ~/.cache/edge-deploy, outside any checkout."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def cache_folder(part: str) -> Path:
    """The folder of one part of the package, such as `lab`."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-deploy" / part
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ensure(place: Path, build: Callable[[Path], None]) -> Path:
    """The folder at `place`, made by `build` when it is missing; it appears complete or not at all.

    `build` gets a folder that does not exist yet, to make. Only one process builds, others wait for it.
    """
    with (place.parent / f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            for left in place.parent.glob(f"build-{place.name}-*"):  # by a build that was killed
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=f"build-{place.name}-") as folder:
                build(Path(folder) / place.name)
                (Path(folder) / place.name).rename(place)
    return place
