"""The root file system of ARM64 boards: Debian's own packages and PyPI's own wheels, put together without running any.

Nothing foreign is executed while building (emulated maintainer scripts would take minutes), so what they would have
done, and a board needs, is done here. Trees are kept under ~/.cache/edge-deploy/lab, named by a hash of their recipe.
"""

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from targets.errors import EnvironmentFault

PYTHON = "3.11"  # of Debian 12; the last one that tflite-runtime 2.14 has wheels for
MIRROR_VARIABLE = "DEPLOY_LAB_MIRROR"
_SUITE = "bookworm"
_PACKAGES = [
    "base-files",
    "base-passwd",
    "libc6",
    "libc-bin",
    "bash",
    "dash",
    "coreutils",
    "grep",
    "sed",
    "findutils",
    "util-linux",
    "mount",
    "tar",
    "gzip",
    "hostname",
    "procps",
    "iproute2",
    "login",
    "passwd",
    "openssh-server",
    "openssh-sftp-server",
    "python3",
    "rsync",
    "libstdc++6",
    "libgomp1",
]
_APT_OPTIONS = ("path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*")
# Virtual environments in /opt: name -> wheels. Dependencies that only tools of a package import are left out.
_WHEELS: Mapping[str, Sequence[str]] = {
    "litert": (
        "ai-edge-litert==2.3.0",
        "numpy==2.4.6",
        "flatbuffers==25.12.19",
        "backports.strenum==1.2.8",
        "typing-extensions==4.16.0",
        "tqdm==4.70.1",
        "protobuf==7.36.2",
    ),
    "onnxruntime": (
        "onnxruntime==1.32.0",
        "numpy==2.4.6",
        "flatbuffers==25.12.19",
        "packaging==26.3",
        "protobuf==7.36.2",
    ),
    "tflite": ("tflite-runtime==2.14.0", "numpy==1.26.4"),
}
# An environment that sees the packages of others.
_JOINED: Mapping[str, Sequence[str]] = {"edge": ("litert", "onnxruntime")}
_PLATFORMS = (*tuple(f"manylinux_2_{minor}_aarch64" for minor in (36, 35, 34, 31, 28, 27, 17)), "manylinux2014_aarch64")
_LAYOUT = 1  # raise it when the code below changes what a tree looks like
_SITE = f"lib/python{PYTHON}/site-packages"


def interpreter(environment: str = "edge") -> str:
    """The Python of an environment on the board; `edge` has LiteRT and ONNX Runtime."""
    return f"/opt/{environment}/bin/python"


def cached_tree() -> Path:
    """Where the tree is or will be."""
    recipe = [_LAYOUT, _SUITE, _PACKAGES, _APT_OPTIONS, dict(_WHEELS), dict(_JOINED), _PLATFORMS]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    return _cache() / f"arm64-{key}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-deploy" / "lab"


def ensure_tree() -> Path:
    """The tree, built when it is missing (half a minute and 300 MB; twice that when the network is slow).

    Raises EnvironmentFault when a download fails or no mirror is known.
    """
    tree = cached_tree()
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (tree.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another lab may be building the same
        if not tree.exists():
            for left in tree.parent.glob("build-*"):  # by a build that was killed
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=tree.parent, prefix="build-") as folder:
                _build(Path(folder))
                (Path(folder) / "tree").rename(tree)
    return tree


def _build(folder: Path) -> None:
    tree, opt = folder / "tree", folder / "opt"
    with ThreadPoolExecutor() as pool:  # Debian and PyPI at the same time
        jobs = [pool.submit(_extract, tree), *(pool.submit(_environment, opt / name, name) for name in _WHEELS)]
        for job in jobs:
            job.result()
    for name, others in _JOINED.items():
        _environment(opt / name, name)
        lines = [f"/opt/{other}/{_SITE}\n" for other in others]
        (opt / name / _SITE / "joined.pth").write_text("".join(lines), encoding="ascii")
    opt.rename(tree / "opt")
    _finish(tree)


def _extract(tree: Path) -> None:
    excludes = [f"--dpkgopt={option}" for option in _APT_OPTIONS]
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--arch=arm64", *excludes]
    command += [f"--include={','.join(_PACKAGES)}", '--aptopt=Apt::Install-Recommends "false"', _SUITE, str(tree)]
    _run([*command, mirror()], "fetching Debian's packages for arm64")
    tree.chmod(0o755)


def mirror() -> str:
    """The Debian archive that this machine itself uses; raises EnvironmentFault when it uses none."""
    if chosen := os.environ.get(MIRROR_VARIABLE):
        return chosen
    filters = ["Identifier: Packages", "Label: Debian", "Component: main"]
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", *filters], capture_output=True, text=True, check=False
    )
    if not asked.stdout.split():
        raise EnvironmentFault(
            "no Debian archive is known here", hint=f"set {MIRROR_VARIABLE} to its address, or run `apt-get update`"
        )
    return asked.stdout.split()[0]


def _environment(place: Path, name: str) -> None:
    """A virtual environment as `python -m venv` lays it out: found by `python -I`, which PYTHONPATH is not."""
    (place / "bin").mkdir(parents=True)
    (place / _SITE).mkdir(parents=True)
    for alias in ("python", "python3"):
        (place / "bin" / alias).symlink_to("/usr/bin/python3")
    config = "home = /usr/bin\ninclude-system-site-packages = false\n"
    (place / "pyvenv.cfg").write_text(config, encoding="ascii")
    if wheels := _WHEELS.get(name):
        platforms = [word for platform in _PLATFORMS for word in ("--platform", platform)]
        target = ["--python-version", PYTHON, "--implementation", "cp", *platforms, "--only-binary=:all:"]
        options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--no-compile"]
        options += ["--root-user-action=ignore", "--target", str(place / _SITE)]
        _run([*_pip(), "install", *options, *target, *wheels], f"fetching the wheels of {name} for arm64")


def _pip() -> list[str]:
    """Some pip; it installs for another machine, so it need not belong to this interpreter."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    if not found:
        raise EnvironmentFault("no pip to fetch wheels with", hint="apt-get install python3-pip")
    return [found]


def _run(command: Sequence[str], doing: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as fault:
        raise EnvironmentFault(f"{doing} failed: {fault}", hint="deploy lab doctor") from fault
    if done.returncode:
        said = done.stderr.strip().splitlines()[-3:]
        raise EnvironmentFault(f"{doing} failed: {' / '.join(said)}", hint="check the network, then try again")


def _finish(tree: Path) -> None:
    """What maintainer scripts would have done, as far as a board without any service but sshd needs it."""
    for name in ("dev", "proc", "sys", "run", "home", "etc/ssh"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in ("etc/passwd", "etc/group", "etc/shadow"):
        (tree / name).write_text("", encoding="ascii")  # each device brings its own
    if sys.version_info[:2] == (3, 11):
        # Only root may write byte code there, and compiling numpy in emulation at every import takes seconds.
        folders = [str(tree / "opt"), str(tree / f"usr/lib/python{PYTHON}")]
        command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "-s", str(tree), "-p", "/", *folders]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # a test file with wrong syntax is no fault
