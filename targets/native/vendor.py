"""The runtimes of the user's own Android app, out of its .aar or .apk, with a program that the user's NDK built.

An Android library needs Android's C library, and so does a program that opens it: it has to be built with the NDK, once
and with one command (see src/bench.h), and lies beside the archive, named `bench-tflite` or `bench-onnx`.
"""

import hashlib
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from targets.cache import cache_folder, ensure
from targets.errors import InputError, NoRuntime
from targets.native.build import PROGRAMS, inputs, program_name
from targets.native.glibc import WHEELS, Carried, pinned

ABIS: Mapping[str, str] = {"aarch64": "arm64-v8a", "armv7l": "armeabi-v7a", "x86_64": "x86_64", "i686": "x86"}
# Machine number in an ELF header, and the NDK's prefix of its compiler.
MACHINES: Mapping[str, tuple[int, str]] = {
    "aarch64": (183, "aarch64-linux-android"),
    "armv7l": (40, "armv7a-linux-androideabi"),
    "x86_64": (62, "x86_64-linux-android"),
    "i686": (3, "i686-linux-android"),
}
_API_LEVEL = 28  # Android 9; older ones miss nothing that the programs use, but nobody has tried
_ANDROID_LINKER = b"/system/bin/linker"
_HEAD_BYTES = 4096  # where every linker puts the name of the loader
_LARGEST_LIBRARY_BYTES = 500_000_000  # ten times the largest build of ONNX Runtime; more is no runtime, or a zip bomb
_BESIDES = ("libc++_shared.so",)  # what a runtime may be linked with and Android does not have


def runtimes(archive: Path, arch: str) -> Mapping[str, str]:
    """The runtimes in the archive for an architecture, distribution name to version; raises InputError."""
    with _opened(archive) as opened:
        names = set(opened.namelist())
        found = {}
        for form in PROGRAMS:
            if member := _member(names, arch, WHEELS[form].library):
                found[pinned(form)[0]] = _version(_read(opened, member))
    return found


def carried(archive: Path, form: str, arch: str) -> Carried:
    """The archive's runtime for a model format and the program beside it.

    Raises InputError for what is no such archive or program, NoRuntime when either is missing.
    """
    runtime, library = pinned(form)[0], WHEELS[form].library
    folder = _unpacked(archive, form, arch)
    if not (folder / library).exists():
        raise NoRuntime(
            f"{archive} has no {library} for {ABIS.get(arch, arch)}", hint="take an .aar or .apk that has it"
        )
    files = {path.name: path for path in folder.iterdir()}
    return Carried(
        runtime=runtime,
        version=_version((folder / library).read_bytes()),
        files={**files, program_name(form): _program(archive, form, arch)},
        library=library,
        program=program_name(form),
        how=f"our program with the libraries of {archive.name}, in the shell",
    )


def ndk_command(form: str, arch: str) -> str:
    """How the user builds the program, to be run in the folder of the archive."""
    clang = f"$NDK/toolchains/llvm/prebuilt/linux-x86_64/bin/{MACHINES[arch][1]}{_API_LEVEL}-clang"
    return f"{clang} -std=c11 -O2 -o {program_name(form)} {' '.join(inputs(form))} -ldl -lm"


def _program(archive: Path, form: str, arch: str) -> Path:
    path = archive.with_name(program_name(form))
    if not path.is_file():
        hint = f"build it with the Android NDK: {ndk_command(form, arch)}"
        raise NoRuntime(f"there is no {path.name} beside {archive}", hint=hint)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    machine = struct.unpack_from("<H", head, 18)[0] if head[:4] == b"\x7fELF" and len(head) > 20 else None
    if machine != MACHINES[arch][0] or _ANDROID_LINKER not in head:
        hint = f"build it with the Android NDK: {ndk_command(form, arch)}"
        raise InputError(f"{path} is no Android program for {ABIS[arch]}", hint=hint)
    return path


def _unpacked(archive: Path, form: str, arch: str) -> Path:
    """A cached folder with the runtime's library, if the archive has it, and what belongs to it."""

    def build(folder: Path) -> None:
        folder.mkdir()
        with _opened(archive) as opened:
            names = set(opened.namelist())
            for library in (WHEELS[form].library, *_BESIDES):
                if member := _member(names, arch, library):
                    (folder / library).write_bytes(_read(opened, member))

    with _opened(archive), archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ensure(cache_folder("native") / f"{form}-{arch}-{digest[:32]}", build)


def _member(names: set[str], arch: str, library: str) -> str:
    """The library's path in an .aar or .apk, empty when it has none."""
    places = [f"{folder}/{ABIS.get(arch, arch)}/{library}" for folder in ("jni", "lib")]
    return next((place for place in places if place in names), "")


def _version(library: bytes) -> str:
    """Of ONNX Runtime, whose symbols are versioned with it; LiteRT's are all of `VERS_1.0`."""
    found = re.search(rb"VERS_(\d+\.\d+\.\d+)\0", library)
    return found.group(1).decode() if found else "unknown"


def _read(opened: zipfile.ZipFile, member: str) -> bytes:
    size = opened.getinfo(member).file_size
    if size > _LARGEST_LIBRARY_BYTES:
        raise InputError(f"{opened.filename}: {member} has {size} bytes, which no runtime has")
    return opened.read(member)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as fault:
        hint = "`libraries:` is an .aar or .apk with the runtime in jni/ or lib/"
        raise InputError(f"{archive} cannot be read as an archive: {fault}", hint=hint) from fault
