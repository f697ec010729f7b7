"""The root file systems that devices start from, as recipes. Wheels are pinned here."""

import subprocess
import sys
from pathlib import Path

from targets.lab.tree import Tree

_PYTHON = "3.11"  # of Debian 12; the last one that tflite-runtime 2.14 has wheels for


def interpreter(environment: str = "edge") -> str:
    """The Python of an environment on a board; `edge` has LiteRT and ONNX Runtime."""
    return f"/opt/{environment}/bin/python"


def finish_board(tree: Path) -> None:
    """What maintainer scripts would have done, as far as a board without any service but sshd needs it."""
    for name in ("dev", "proc", "sys", "run", "home", "etc/ssh"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    for name in ("etc/passwd", "etc/group", "etc/shadow"):
        (tree / name).write_text("", encoding="ascii")  # each device brings its own
    if sys.version_info[:2] == (3, 11):
        # Only root may write byte code there, and compiling numpy in emulation at every import takes seconds.
        folders = [str(tree / "opt"), str(tree / f"usr/lib/python{_PYTHON}")]
        command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "-s", str(tree), "-p", "/", *folders]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # a test file with wrong syntax is no fault


_BOARD_PACKAGES = (
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
    "libfaketime",  # for the fault `clock`
    "login",
    "passwd",
    "openssh-server",
    "openssh-sftp-server",
    "python3",
    "rsync",
    "libstdc++6",
    "libgomp1",
)
_NO_DOCUMENTS = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")

ARM64 = Tree(
    name="arm64",
    architecture="arm64",
    suite="bookworm",
    packages=_BOARD_PACKAGES,
    path_excludes=_NO_DOCUMENTS,
    python=_PYTHON,
    wheels={
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
    },
    joined={"edge": ("litert", "onnxruntime")},
    platforms=(
        *tuple(f"manylinux_2_{minor}_aarch64" for minor in (36, 35, 34, 31, 28, 27, 17)),
        "manylinux2014_aarch64",
    ),
    layout=2,
    finish=finish_board,
)
