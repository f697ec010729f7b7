"""The device's own Python environment: made of wheels that the host brought, without network and without pip.

ROOT/envs/<digest>/   one environment, complete and tried, named by the digest of its lock
ROOT/env              link to the one in use; the boot program prefers its interpreter
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

from .blobs import Blobs
from .facts import MODULES
from .files import flush, sha256_of
from .wire import Json, Refused

VENV_S = 120.0
IMPORT_S = 300.0  # a first import compiles everything: a minute on an emulated board


def provision(blobs: Blobs, request: Json) -> Json:
    """Make the environment of these wheels unless it is there, try its runtimes, and put it into use.

    Refused as "hash-mismatch" for a wheel that has rotted; what an import did is told, not refused: the host judges.
    """
    digest, wheels = str(request["env"]), [(str(name), str(sha)) for name, sha in request["wheels"]]
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise Refused("agent", "not a digest: %r" % digest)
    folder = blobs.root / "envs"
    folder.mkdir(exist_ok=True)
    place = folder / digest
    made = not (place / "lock.json").is_file()
    if made:
        part = folder / (digest + ".part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
        make(part, [(name, existing(blobs, sha)) for name, sha in wheels])
        (part / "lock.json").write_text(json.dumps({"wheels": wheels}), encoding="utf-8")
        flush(part / "lock.json")
        part.rename(place)  # a virtual environment finds itself by where its interpreter's link is
        flush(folder)
    imports = {name: tried(place, name) for name in MODULES if installed(place, name)}
    usable = bool(imports) and all(told["ok"] for told in imports.values())
    if usable:
        use(blobs.root, place)
        for other in folder.iterdir():
            if other != place and other.name != request.get("keep"):
                shutil.rmtree(other, ignore_errors=True)
    return {"made": made, "in_use": usable, "imports": imports, "python": str(place / "bin" / "python3")}


def existing(blobs: Blobs, digest: str) -> Path:
    path = blobs.blob(digest)
    if not path.is_file():
        raise Refused("agent", "wheel %s is not on the device; push it first" % digest)
    if sha256_of(path) != digest:
        path.unlink()
        raise Refused("hash-mismatch", "the stored wheel %s has changed; push it again" % digest)
    return path


def make(place: Path, wheels: list[tuple[str, Path]]) -> None:
    # Without pip: Debian's Python has no ensurepip unless a package of its own is installed.
    argv = [getattr(sys, "_base_executable", "") or sys.executable, "-I", "-m", "venv", "--without-pip", str(place)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=VENV_S, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no reason given"]
        raise Refused("agent", "python3 -m venv failed: %s" % said[0])
    site = next(iter(sorted(place.glob("lib/python3*/site-packages"))))
    for name, path in wheels:
        unpack(path, site, name)


def unpack(wheel: Path, site: Path, name: str) -> None:
    """Install one wheel as its format says (PEP 427), without its scripts, which no agent runs."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            parts = Path(member.filename).parts
            if not parts or member.is_dir():
                continue
            if Path(member.filename).is_absolute() or ".." in parts:
                raise Refused("agent", "wheel %s has a path that leaves it: %r" % (name, member.filename))
            if parts[0].endswith(".data"):
                if len(parts) < 3 or parts[1] not in ("purelib", "platlib"):
                    continue
                parts = parts[2:]
            target = site.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def installed(place: Path, distribution: str) -> bool:
    name = distribution.replace("-", "_")
    return any(place.glob("lib/python3*/site-packages/%s-*.dist-info" % name))


def tried(place: Path, distribution: str) -> Json:
    """What importing it did, in a process that may die of it: some wheels hold instructions that some CPUs do not."""
    code = "import %s; import importlib.metadata as m; print(m.version(%r))" % (MODULES[distribution], distribution)
    argv = [str(place / "bin" / "python3"), "-I", "-c", code]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=IMPORT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"ok": False, "signal": "", "said": "importing it took more than %g s" % IMPORT_S}
    if done.returncode == 0:
        return {"ok": True, "version": done.stdout.strip().splitlines()[-1], "signal": "", "said": ""}
    name = ""
    if done.returncode < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-done.returncode).name
    said = done.stderr.strip().splitlines()[-1:] or [""]
    return {"ok": False, "signal": name or "", "said": said[0][:500]}


def use(root: Path, place: Path) -> None:
    """Switch the link, in one step."""
    part = root / ("env.%d.part" % os.getpid())
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    part.symlink_to(os.path.join("envs", place.name))  # noqa: PTH118
    part.replace(root / "env")
    flush(root)
