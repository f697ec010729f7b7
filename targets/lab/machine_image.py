"""What an ARM64 virtual machine starts from: Debian's kernel, the modules it needs, a disk with a board's tree.

Shared by all machines of all labs and never written; what is a device's own comes beside it, see `targets.lab.machine`.
"""

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from targets.errors import EnvironmentFault
from targets.lab.cpio import archive, file, folder
from targets.lab.tree import Tree, ensure, ensure_tree, extract
from targets.lab.trees import ARM64

# The `cloud` kernel: ext4 is part of it, and it looks for little hardware that a virtual machine has not.
_KERNEL = Tree(
    name="kernel",
    architecture="arm64",
    suite="bookworm",
    packages=("linux-image-cloud-arm64", "busybox-static"),
    path_excludes=("/usr/share/*",),
    layout=1,
    finish=lambda _: None,
)
_MODULES = ("virtio_mmio", "virtio_blk", "virtio_net")
FREE_BYTES = 4 << 30  # most that a device may have; the file has holes there
BLOCK_BYTES = 4096
_METADATA = 1.1  # of ext4, in proportion to the files
# No journal: no machine lives on after a crash. Inode tables are left as holes, which read as the zeros they must be.
_EXT4 = ("-t", "ext4", "-O", "^has_journal", "-m", "0", "-b", str(BLOCK_BYTES), "-E", "lazy_itable_init=1,nodiscard")
_LAYOUT = 1  # raise it when the code below changes what an image looks like


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineImage:
    """The three files that a machine starts from."""

    place: Path

    @property
    def kernel(self) -> Path:
        return self.place / "kernel"

    @property
    def initrd(self) -> Path:
        """A cpio archive, not compressed: decompressing would cost the emulated processor more than reading."""
        return self.place / "initrd"

    @property
    def disk(self) -> Path:
        """Raw ext4, without a partition table; sparse."""
        return self.place / "disk"


def ensure_image(say: Callable[[str], None] = lambda _: None) -> MachineImage:
    """The image, built when it is missing (10 s and 600 MB, once there is a board's tree).

    Raises EnvironmentFault.
    """
    tree = ensure_tree(ARM64, say)

    def build(place: Path) -> None:
        say("making the image of the virtual machine, once")
        _build(place, tree)

    recipe = [_LAYOUT, _KERNEL.digest, tree.name, _MODULES, FREE_BYTES, _EXT4]
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    return MachineImage(place=ensure(f"machine-{digest}", build))


def _build(place: Path, tree: Path) -> None:
    place.mkdir()
    image = MachineImage(place=place)
    system = place.with_name("system")
    with ThreadPoolExecutor() as pool:
        disk = pool.submit(_make_disk, image.disk, tree)
        extract(system, _KERNEL)
        disk.result()
    (kernel,) = system.glob("boot/vmlinuz-*")
    kernel.rename(image.kernel)
    image.initrd.write_bytes(_first_files(system))


def _make_disk(disk: Path, tree: Path) -> None:
    files = sum(path.lstat().st_blocks * 512 for path in tree.rglob("*"))
    size_kib = (int(files * _METADATA) + FREE_BYTES) // 1024
    command = ["mke2fs", "-q", *_EXT4, "-d", str(tree), str(disk), f"{size_kib}k"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as fault:
        raise EnvironmentFault(f"no disk could be made: {fault}", hint="deploy lab doctor") from fault
    if done.returncode:
        raise EnvironmentFault(f"no disk could be made: {done.stderr.strip()}", hint="is the disk full?")


def _first_files(system: Path) -> bytes:
    """What every machine's `/init` works with."""
    modules = in_order(_MODULES, system)
    names = "".join(f"{path.stem}\n" for path in modules)
    folders = [folder(name) for name in ("bin", "modules", "proc", "sys", "dev", "root")]
    busybox = file("bin/busybox", (system / "bin/busybox").read_bytes(), 0o755)
    loaded = [file(f"modules/{path.name}", path.read_bytes()) for path in modules]
    return archive([*folders, busybox, file("modules/order", names.encode()), *loaded])


def in_order(names: Iterable[str], system: Path) -> list[Path]:
    """The files of kernel modules, each behind those that it depends on; no built-in ones."""
    files = {path.stem.replace("-", "_"): path for path in system.glob("lib/modules/*/kernel/**/*.ko")}
    found: dict[str, Path] = {}

    def add(name: str) -> None:
        told = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        for other in told[1].decode().split(",") if told and told[1] else ():
            add(other.replace("-", "_"))
        found.setdefault(name, files[name])

    for name in names:
        add(name)
    return list(found.values())
