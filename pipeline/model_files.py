"""The files of a model: one; or an `.onnx` and, in its folder, those that hold its weights.

One protocol buffer ends at 2 GB, so larger models keep their weights apart. Ours keep them in files named by their own
SHA-256: wherever files are kept by digest (the store here, the one on a device), a model finds its weights in its own
folder under the name it asks for, and its own digest vouches for all of them.
"""

import contextlib
import errno
import mmap
import os
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.fit import wire
from pipeline.fit.records import Malformed
from pipeline.records import Format

_DIGEST = re.compile(r"[0-9a-f]{64}")
_DEEPEST = 50  # graphs inside one another
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)


def is_ours(name: str) -> bool:
    """Whether a file beside a model is named by its digest."""
    return _DIGEST.fullmatch(name) is not None


def beside(format: Format, path: Path) -> tuple[str, ...]:
    """Names of the files in its folder that the model needs, sorted; loads nothing but its graph's pages.

    Empty for what cannot be read: its loader says why.
    """
    if format != "onnx" or not path.stat().st_size:
        return ()
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return tuple(sorted({place for graph in wire.messages(memoryview(data), 7) for place in _places(graph, 0)}))
    except (Malformed, struct.error, IndexError, OverflowError):
        return ()


def sizes(format: Format, path: Path) -> dict[str, int]:
    """The same with their sizes; a missing file counts nothing."""
    found = {name: path.parent / name for name in beside(format, path)}
    return {name: place.stat().st_size if place.is_file() else 0 for name, place in found.items()}


def total_bytes(format: Format, path: Path) -> int:
    """Of the model and what it needs."""
    return path.stat().st_size + sum(sizes(format, path).values())


def copy_model(format: Format, path: Path, to: Path) -> None:
    """Copy a model; what lies beside it gets a second name beside the copy."""
    shutil.copyfile(path, to)
    for name in beside(format, path):
        link(path.parent / name, to.parent / name)


def link(path: Path, to: Path) -> None:
    """Give a file that nobody changes a second name, in one step; where there are no links, copy it.

    No symbolic link: onnxruntime follows none that leads out of the model's folder. (onnx itself takes no hard link
    either, see `onnx_file.read`.)
    """
    if to.exists() and to.samefile(path):
        return
    new = to.with_name(f".{to.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    try:
        os.link(path, new)
    except OSError as fault:
        if fault.errno not in _NO_LINKS:
            raise
        shutil.copyfile(path, new)
    new.replace(to)


def _places(graph: memoryview, depth: int) -> Iterator[str]:
    """Of the graph's tensors: ONNX's GraphProto has nodes in field 1 and initializers in field 5."""
    if depth > _DEEPEST:
        raise Malformed("graphs too deep in one another")
    for number, part in wire.fields(graph):
        if isinstance(part, int):
            continue
        if number == 5:
            yield from _place(part)
        elif number == 1:
            for attribute in wire.messages(part, 5):
                for field, value in wire.fields(attribute):
                    if field in (5, 10) and not isinstance(value, int):  # AttributeProto's t and tensors
                        yield from _place(value)
                    elif field in (6, 11) and not isinstance(value, int):  # g and graphs
                        yield from _places(value, depth + 1)


def _place(tensor: memoryview) -> Iterator[str]:
    """TensorProto has its external data in field 13, as pairs of key and value."""
    for pair in wire.messages(tensor, 13):
        told = {number: wire.text(value) for number, value in wire.fields(pair)}
        if told.get(1) == "location":
            yield told.get(2, "")
