"""Compile the programs, for this machine or with Debian's cross compiler; nothing compiled is part of the package.

`python -m targets.native.build [ARCHITECTURE ...]` (`make native`) does so ahead of time, a runner when need be.
The results are kept under ~/.cache/edge-deploy/native, named by a hash of the sources.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from targets.cache import cache_folder, ensure
from targets.errors import EnvironmentFault, NoRuntime

SOURCES = Path(__file__).parent / "src"
PROGRAMS: Mapping[str, str] = {"tflite": "litert.c", "onnx": "ort.c"}  # model format → the runtime's source
ARCHITECTURES = ("aarch64", "x86_64")  # those that PyPI has both runtimes for
FLAGS = ("-std=c11", "-O2")
LIBRARIES = ("-ldl", "-lm")


def compiler(arch: str) -> str:
    """The C compiler for an architecture; raises EnvironmentFault with what to install when there is none."""
    native = platform.machine() == arch
    name = "cc" if native else f"{arch.replace('_', '-')}-linux-gnu-gcc"
    if not shutil.which(name):
        debian = arch.replace("_", "-")
        cross = {"aarch64": "arm64", "x86_64": "amd64"}.get(arch, arch)
        packages = "gcc libc6-dev" if native else f"gcc-{debian}-linux-gnu libc6-dev-{cross}-cross"
        raise EnvironmentFault(
            f"no C compiler for {arch} here ({name})", hint=f"apt-get install --no-install-recommends {packages}"
        )
    return name


def program_name(form: str) -> str:
    return f"bench-{form}"


def ensure_programs(arch: str) -> Path:
    """A folder with the program of each model format, compiled when it is missing.

    Raises NoRuntime for an architecture that no runtime is there for, EnvironmentFault without a compiler.
    """
    if arch not in ARCHITECTURES:
        raise NoRuntime(
            f"there are no runtimes to bring to a device of architecture {arch}",
            hint=f"set `libraries:` to an .aar or .apk that has them; known without: {', '.join(ARCHITECTURES)}",
        )

    def build(folder: Path) -> None:
        folder.mkdir()
        for form in PROGRAMS:
            run_compiler([compiler(arch), *FLAGS, "-o", str(folder / program_name(form)), *inputs(form), *LIBRARIES])

    digest = hashlib.sha256(" ".join((*FLAGS, *LIBRARIES)).encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    return ensure(cache_folder("native") / f"programs-{arch}-{digest.hexdigest()[:16]}", build)


def inputs(form: str) -> list[str]:
    """The source files of the program for a model format."""
    return [str(SOURCES / name) for name in ("bench.c", "tensors.c", PROGRAMS[form])]


def run_compiler(command: list[str]) -> None:
    """Compile something; raises EnvironmentFault with the compiler's first words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[:8])
        raise EnvironmentFault(f"{command[0]} failed:\n{said}", hint="it must be GCC 9, Clang 10 or later")


def system_library(arch: str, name: str) -> Path:
    """The file that the compiler would link for a name such as libc.so.6; raises EnvironmentFault."""
    asked = subprocess.run(
        [compiler(arch), f"-print-file-name={name}"], capture_output=True, text=True, check=False
    ).stdout.strip()
    path = Path(asked)
    if not path.is_absolute() or not path.exists():  # it answers with the bare name for what it does not know
        hint = f"install the C and C++ run-time libraries that belong to {compiler(arch)}"
        raise EnvironmentFault(f"{name} for {arch} is not on this machine", hint=hint)
    return path.resolve()


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ARCHITECTURES[:1]:
        print(ensure_programs(wanted))
