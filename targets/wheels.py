"""The wheels that a device's own environment is made of: resolved and fetched here, for its Python and its C library.

The result is a lock: the same packages for the same kind of device are the same files from then on.
"""

import email
import hashlib
import json
import re
import subprocess
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from targets.cache import cache_folder, ensure
from targets.errors import EnvironmentFault, NoRuntime
from targets.lab.tree import pip_command
from targets.records import Facts

LEAST_GLIBC = 5  # minor of 2.5: what the oldest manylinux wheels ask for
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_ROUNDS = 5  # of fetching what only the device's markers ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """An environment to be: every wheel with its hash; `digest` names it on the device."""

    requirements: tuple[str, ...]
    wheels: Mapping[str, str]  # file name → SHA-256
    folder: Path  # where the files are
    given_up: tuple[str, ...] = ()  # what was tried before and why it cannot be had

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(sorted(self.wheels.items())).encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum((self.folder / name).stat().st_size for name in self.wheels)


def lock(facts: Facts, packages: Sequence[str] = ()) -> Lock:
    """The wheels of these packages for that device; without packages, the runtimes, at this host's versions if had.

    Kept in the cache, so that a second device of the kind costs nothing and needs no network.
    Raises NoRuntime when there are no wheels for such a device, EnvironmentFault when they cannot be fetched.
    """
    tags = platforms(facts)
    given_up: list[str] = []
    for wanted in [tuple(packages)] if packages else list(_defaults()):
        key = json.dumps([wanted, facts.python.rpartition(".")[0], tags])
        place = cache_folder("wheels") / hashlib.sha256(key.encode()).hexdigest()[:16]
        try:
            folder = ensure(place, lambda folder, wanted=wanted: _fetch(folder, wanted, facts, tags))  # type: ignore[misc]
        except _NoWheel as fault:
            given_up.append(f"{' '.join(wanted)}: {fault}")
            continue
        wheels = json.loads((folder / "lock.json").read_text(encoding="utf-8"))
        return Lock(requirements=wanted, wheels=wheels, folder=folder, given_up=tuple(given_up))
    raise NoRuntime(
        f"{facts.target}: there are no wheels for Python {facts.python} on {facts.arch} with {facts.libc}\n  "
        + "\n  ".join(given_up),
        hint="install another Python there and set `python:` of the target, or name packages with --package",
    )


def platforms(facts: Facts) -> list[str]:
    """The platform tags of wheels that run there, best first (PEP 600).

    Raises NoRuntime for a C library other than glibc.
    """
    found = re.fullmatch(r"glibc 2\.(\d+).*", facts.libc)
    if not found:
        raise NoRuntime(
            f"{facts.target}: its C library is {facts.libc or 'unknown'}, the runtimes' wheels need glibc",
            hint="use a system with glibc, or the native runner",
        )
    tags = []
    for minor in range(int(found[1]), LEAST_GLIBC - 1, -1):
        tags.append(f"manylinux_2_{minor}_{facts.arch}")
        if minor in _LEGACY:
            tags.append(f"{_LEGACY[minor]}_{facts.arch}")
    return [*tags, f"linux_{facts.arch}"]


class _NoWheel(Exception):
    """The packages cannot be had for the device."""


def _defaults() -> Iterator[tuple[str, ...]]:
    """What to try, best first: answers are compared with the host's, so its own versions come first."""
    litert, onnx = (f"{name}=={found}" if (found := _own(name)) else name for name in ("ai-edge-litert", "onnxruntime"))
    yield litert, onnx
    yield "ai-edge-litert", "onnxruntime"
    yield "tflite-runtime", "numpy<2", "onnxruntime"
    yield (onnx,)
    yield ("onnxruntime",)
    yield "tflite-runtime", "numpy<2"


def _own(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _fetch(folder: Path, wanted: Sequence[str], facts: Facts, tags: Sequence[str]) -> None:
    folder.mkdir()
    _download(folder, wanted, facts, tags)
    for _ in range(_ROUNDS):
        needed, missing = _closure(folder, wanted, facts)
        if not missing:
            break
        _download(folder, missing, facts, tags)
    else:
        raise _NoWheel(f"these ask for ever more packages: {', '.join(missing)}")
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in needed}
    (folder / "lock.json").write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def _download(folder: Path, wanted: Sequence[str], facts: Facts, tags: Sequence[str]) -> None:
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--only-binary=:all:", "--implementation", "cp"]
    platform = [word for tag in tags for word in ("--platform", tag)]
    python = ["--python-version", ".".join(facts.python.split(".")[:2])]
    done = subprocess.run(
        [*pip_command(), "download", *options, *platform, *python, "--dest", str(folder), *wanted],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        return
    said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
    last = said[-1] if said else done.stderr.strip()[-300:]
    # pip has one exit code for "no such wheel" and "no network"; only the former is an answer about the device.
    if re.search(r"No matching distribution|conflicting dependencies|ResolutionImpossible", done.stderr):
        raise _NoWheel(last)
    raise EnvironmentFault(f"fetching wheels for {facts.target} failed: {last}", hint="check the network, try again")


def _closure(folder: Path, wanted: Sequence[str], facts: Facts) -> tuple[list[Path], list[str]]:
    """The wheels that the device needs, and the requirements that none of them meets.

    pip judges environment markers by this host; a device with an older Python may need more.
    """
    have = {parse_wheel_filename(path.name)[0]: path for path in sorted(folder.glob("*.whl"))}
    environment = _environment(facts)
    queue = [Requirement(text) for text in wanted]
    needed: dict[str, Path] = {}
    missing: list[str] = []
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name not in have:
            missing.append(f"{requirement.name}{requirement.specifier}")
        elif name not in needed:
            needed[name] = have[name]
            for inner in _requirements(have[name]):
                extras = {"", *requirement.extras}
                if inner.marker is None or any(inner.marker.evaluate({**environment, "extra": e}) for e in extras):
                    queue.append(inner)
    return sorted(needed.values()), missing


def _environment(facts: Facts) -> dict[str, str]:
    short = ".".join(facts.python.split(".")[:2])
    here = {key: str(value) for key, value in default_environment().items()}
    return {**here, "python_version": short, "python_full_version": facts.python, "platform_machine": facts.arch}


def _requirements(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata = email.message_from_bytes(archive.read(name))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist") or ()]
