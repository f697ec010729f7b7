"""Root file systems of devices: Debian's own packages and PyPI's own wheels, put together without running any.

Nothing foreign is executed while building (emulated maintainer scripts would take minutes), so what they would have
done, and a device needs, is done by the recipe's own `finish`. Trees are kept under ~/.cache/edge-deploy/lab, named by
a hash of their recipe. The recipes are in `targets.lab.trees`.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from targets import cache
from targets.errors import EnvironmentFault

MIRROR_VARIABLE = "DEPLOY_LAB_MIRROR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What a root file system is made of. Everything but `finish` is in its hash."""

    name: str  # of its folder, in front of the hash
    architecture: str  # as Debian names it
    suite: str
    packages: tuple[str, ...]
    path_excludes: tuple[str, ...] = ()
    python: str = ""  # version of its interpreter, as "3.11"
    # Virtual environments in /opt: name → wheels. Dependencies that only tools of a package import are left out.
    wheels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    joined: Mapping[str, Sequence[str]] = field(default_factory=dict)  # an environment that sees the packages of others
    platforms: tuple[str, ...] = ()  # tags of the wheels that run on it
    system_packages: bool = False  # whether environments see Debian's Python packages
    layout: int  # raise it when `finish` or the code below changes what the tree looks like
    finish: Callable[[Path], None]

    @property
    def digest(self) -> str:
        told = {key: getattr(self, key) for key in self.__slots__ if key != "finish"}
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=dict).encode()).hexdigest()[:16]

    @property
    def site(self) -> str:
        """Where an environment's packages are, below its folder."""
        return f"lib/python{self.python}/site-packages"


def cache_folder() -> Path:
    """Where what takes long to fetch is kept, outside any checkout."""
    return cache.cache_folder("lab")


def ensure(name: str, build: Callable[[Path], None]) -> Path:
    """The lab's cached folder of that name, made by `build` when it is missing."""
    return cache.ensure(cache_folder() / name, build)


def ensure_tree(recipe: Tree, say: Callable[[str], None] = lambda _: None) -> Path:
    """The tree, built when it is missing (half a minute and 300 MB for a board; twice that when the network is slow).

    Raises EnvironmentFault when a download fails or no mirror is known.
    """

    def build(tree: Path) -> None:
        say(f"fetching the {recipe.name} file system, once")
        _build(recipe, tree)

    return ensure(f"{recipe.name}-{recipe.digest}", build)


def _build(recipe: Tree, tree: Path) -> None:
    opt = tree.with_name("opt")
    with ThreadPoolExecutor() as pool:  # Debian and PyPI at the same time
        jobs = [pool.submit(extract, tree, recipe)]
        jobs += [pool.submit(_environment, recipe, opt / name, wheels) for name, wheels in recipe.wheels.items()]
        for job in jobs:
            job.result()
    for name, others in recipe.joined.items():
        _environment(recipe, opt / name, ())
        lines = [f"/opt/{other}/{recipe.site}\n" for other in others]
        (opt / name / recipe.site / "joined.pth").write_text("".join(lines), encoding="ascii")
    if opt.exists():
        opt.rename(tree / "opt")
    recipe.finish(tree)


def extract(tree: Path, recipe: Tree) -> None:
    """Unpack Debian packages, with what they depend on, and run nothing; raises EnvironmentFault."""
    excludes = [f"--dpkgopt=path-exclude={path}" for path in recipe.path_excludes]
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--arch={recipe.architecture}", *excludes]
    command += [f"--include={','.join(recipe.packages)}", '--aptopt=Apt::Install-Recommends "false"']
    _run([*command, recipe.suite, str(tree), mirror()], f"fetching Debian's packages for {recipe.architecture}")
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


def _environment(recipe: Tree, place: Path, wheels: Sequence[str]) -> None:
    """A virtual environment as `python -m venv` lays it out: found by `python -I`, which PYTHONPATH is not."""
    (place / "bin").mkdir(parents=True)
    (place / recipe.site).mkdir(parents=True)
    for alias in ("python", "python3"):
        (place / "bin" / alias).symlink_to("/usr/bin/python3")
    config = f"home = /usr/bin\ninclude-system-site-packages = {str(recipe.system_packages).lower()}\n"
    (place / "pyvenv.cfg").write_text(config, encoding="ascii")
    if wheels:
        platforms = [word for platform in recipe.platforms for word in ("--platform", platform)]
        target = ["--python-version", recipe.python, "--implementation", "cp", *platforms, "--only-binary=:all:"]
        options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--no-compile"]
        options += ["--root-user-action=ignore", "--target", str(place / recipe.site)]
        doing = f"fetching the wheels of {place.name} for {recipe.architecture}"
        _run([*pip_command(), "install", *options, *target, *wheels], doing)


def pip_command() -> list[str]:
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
