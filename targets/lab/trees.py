"""The root file systems that devices start from, as recipes. Wheels are pinned here."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
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
        folders = [str(tree / name) for name in ("opt", f"usr/lib/python{_PYTHON}", "usr/lib/python3/dist-packages")]
        command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "-s", str(tree), "-p", "/", *folders]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # a test file with wrong syntax is no fault


def finish_armhf(tree: Path) -> None:
    """A board, with the libraries that numpy needs where the linker looks; else Debian sees to that."""
    finish_board(tree)
    folder = tree / "usr/lib/arm-linux-gnueabihf"
    for name in ("blas", "lapack"):
        (folder / f"lib{name}.so.3").symlink_to(f"{name}/lib{name}.so.3")


def finish_android(tree: Path) -> None:
    """Lay out what is where on Android; what Debian calls /usr stays below it."""
    for name in ("proc", "sys", "run", "dev", "data", "vendor/bin", "system/etc", "system/xbin", "system/bin"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    programs = tree / "system/bin"
    shutil.copy2(tree / "usr/bin/toybox", programs / "toybox")
    shutil.copy2(tree / "usr/bin/mksh", programs / "sh")
    for name in _TOYBOX.split():
        (programs / name).symlink_to("toybox")
    (programs / "adbd").symlink_to("/usr/lib/android-sdk/platform-tools/adbd")
    (tree / "usr/bin/sh").symlink_to("/system/bin/sh")  # also /bin/sh
    for script in _ANDROID.glob("*.sh"):
        shutil.copy(script, programs / script.stem)
        (programs / script.stem).chmod(0o755)
    (tree / "system/build.prop").write_text("", encoding="ascii")  # each device brings its own
    (tree / "sdcard").symlink_to("/data/media/0")
    accounts = {"root": 0, "shell": 2000}
    passwd = "".join(f"{name}:x:{number}:{number}:{name}:/:/system/bin/sh\n" for name, number in accounts.items())
    (tree / "etc/passwd").write_text(passwd, encoding="ascii")
    (tree / "etc/group").write_text("".join(f"{name}:x:{n}:\n" for name, n in accounts.items()), encoding="ascii")


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
_ANDROID = Path(__file__).parent / "android"  # scripts in place of programs that Debian does not have
PROPERTIES = "dev/__properties__/all"  # where getprop and setprop look
# Below /data: folder → mode. On a phone the second belongs to user `shell`, which adbd is there.
WRITABLE: Mapping[str, int] = {"data/media/0": 0o770, "data/local/tmp": 0o777, "data/misc": 0o771, "data/app": 0o771}
# Android's own choice of toybox's commands, as far as Debian's toybox has them.
_TOYBOX = """
[ base64 basename blkid blockdev cal cat chattr chgrp chmod chown chroot chrt cksum clear cmp comm cp cpio cut date
devmem df dirname dmesg dos2unix du echo egrep env expand fallocate false fgrep file find flock fmt free fsync getconf
grep groups gunzip head hostname hwclock i2cdetect i2cdump i2cget i2cset iconv id ifconfig inotifyd insmod ionice
iorenice kill killall ln logname losetup ls lsattr lsmod lspci lsusb md5sum microcom mkdir mkfifo mknod mkswap mktemp
modinfo mount mountpoint mv nc netcat netstat nice nl nohup nproc nsenter od partprobe paste patch pgrep pidof pkill
pmap printenv printf prlimit ps pwd readelf readlink realpath renice rev rfkill rm rmdir rmmod rtcwake sed seq setfattr
setsid sha1sum sha224sum sha256sum sha384sum sha512sum sleep sort split stat strings swapoff swapon sync sysctl tac
tail tar taskset tee test time timeout top touch true truncate tty uclampset ulimit umount uname uniq unix2dos unlink
unshare uptime usleep uudecode uuencode uuidgen vmstat watch wc which whoami xargs xxd yes zcat
"""
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

ARMHF = Tree(
    name="armhf",
    architecture="armhf",
    suite="bookworm",
    packages=(*_BOARD_PACKAGES, "python3-numpy"),  # PyPI has no numpy for it
    path_excludes=(*_NO_DOCUMENTS, "/usr/lib/python3/dist-packages/numpy/*/tests/*"),
    python=_PYTHON,
    wheels={"tflite": ("tflite-runtime==2.14.0",)},
    platforms=("manylinux_2_34_armv7l",),
    system_packages=True,
    layout=1,
    finish=finish_armhf,
)

ANDROID = Tree(
    name="android",
    architecture="arm64",
    suite="trixie",  # the first that has adbd; a tree of its own, for it needs a newer libc than boards have
    packages=("base-files", "libc6", "adbd", "toybox", "mksh", "libstdc++6", "libgomp1"),
    path_excludes=("/usr/share/*",),
    layout=2,
    finish=finish_android,
)
