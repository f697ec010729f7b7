"""The runtimes of PyPI's own wheels with the C library they need, to run where there is another one or none.

Everything goes into one folder on the device and is started through the loader in it, so that nothing of the device
but its kernel is used. That should hold on phones too, where it has only been tried in emulation: experimental there.
"""

import importlib.metadata
import platform
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from targets.cache import cache_folder, ensure
from targets.errors import EnvironmentFault
from targets.lab.tree import pip_command
from targets.lab.trees import ARM64
from targets.native.build import ensure_programs, program_name, system_library

LOADERS: Mapping[str, str] = {"aarch64": "ld-linux-aarch64.so.1", "x86_64": "ld-linux-x86-64.so.2"}
# What either runtime is linked with; since glibc 2.34 the last three are empty, but still asked for.
SYSTEM_LIBRARIES = (
    *("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1"),
    *("libdl.so.2", "libpthread.so.0", "librt.so.1"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A program with its runtime, as files to bring into one folder of the device."""

    runtime: str  # distribution name
    version: str  # empty where only the library itself knows
    files: Mapping[str, Path]
    library: str  # the runtime's, among the files
    program: str  # among the files
    loader: str = ""  # among the files; empty: the device's own
    how: str  # for the record: what this process is, compared with an application

    def command(self, folder: str) -> list[str]:
        """How to start it in that folder, without its arguments; a path in them may be relative to the folder."""
        enter = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", folder]
        # By relative names: a loader takes ; : and $ in a list of folders for its own.
        if self.loader:
            return [*enter, f"./{self.loader}", "--library-path", ".", f"./{self.program}"]
        return [*enter, "env", "LD_LIBRARY_PATH=.", f"./{self.program}"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """Where a runtime's library is."""

    environment: str  # of the lab's ARM64 boards, which pins the version
    inside: str  # path in the wheel, up to what follows `.so`
    library: str  # its name on the device


WHEELS: Mapping[str, Wheel] = {
    "tflite": Wheel(environment="litert", inside="ai_edge_litert/libLiteRt.so", library="libLiteRt.so"),
    "onnx": Wheel(environment="onnxruntime", inside="onnxruntime/capi/libonnxruntime.so", library="libonnxruntime.so"),
}


def pinned(form: str) -> tuple[str, str]:
    """Distribution and version of the runtime for a model format: the same as on the lab's boards."""
    name, _, version = ARM64.wheels[WHEELS[form].environment][0].partition("==")
    return name, version


def carried(form: str, arch: str) -> Carried:
    """The program, its runtime and their C library; compiled and fetched when they are not in the cache.

    Raises NoRuntime for an architecture without wheels, EnvironmentFault without a compiler or network.
    """
    (name, version), wheel, loader = pinned(form), WHEELS[form], LOADERS.get(arch, "")
    programs = ensure_programs(arch)
    files = {program_name(form): programs / program_name(form), wheel.library: _library(form, arch)}
    files.update({system: system_library(arch, system) for system in (loader, *SYSTEM_LIBRARIES)})
    return Carried(
        runtime=name,
        version=version,
        files=files,
        library=wheel.library,
        program=program_name(form),
        loader=loader,
        how="our program with its own C library, in the shell",
    )


def _library(form: str, arch: str) -> Path:
    """The runtime's shared library: of this very environment when it fits, else of the wheel."""
    (name, version), wheel = pinned(form), WHEELS[form]
    if installed := _installed(form, arch):
        return installed

    def fetch(folder: Path) -> None:
        folder.mkdir()
        with tempfile.TemporaryDirectory() as scratch:
            _download(f"{name}=={version}", arch, Path(scratch))
            (file,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(file) as archive:
                (member,) = _matching(archive.namelist(), wheel.inside)
                (folder / wheel.library).write_bytes(archive.read(member))

    return ensure(cache_folder("native") / f"{name}-{version}-{arch}", fetch) / wheel.library


def _installed(form: str, arch: str) -> Path | None:
    name, version = pinned(form)
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    if found.version != version or platform.machine() != arch or sys.platform != "linux":
        return None
    paths = _matching([str(file) for file in found.files or ()], WHEELS[form].inside)
    return Path(str(found.locate_file(paths[0]))) if paths else None


def _matching(names: Sequence[str], inside: str) -> list[str]:
    """The library itself, whatever version its name ends in."""
    return [name for name in names if name == inside or name.startswith(f"{inside}.")]


def _download(requirement: str, arch: str, folder: Path) -> None:
    tags = [tag.replace("aarch64", arch) for tag in ARM64.platforms]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command = [*pip_command(), "download", *options, "--python-version", ARM64.python, "--implementation", "cp"]
    done = subprocess.run(
        [*command, *platforms, "--dest", str(folder), requirement], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise EnvironmentFault(f"fetching {requirement} for {arch} failed: {said}", hint="check the network, try again")
