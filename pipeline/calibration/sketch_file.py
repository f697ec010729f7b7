"""Sketches on disk: small, mergeable, and the same bytes for the same observations.

After a line that says what it is, the file is zlib-compressed. Inside stand one line of JSON and two columns of
integers, tensors in order of their names. `digest` is of that content: compressors differ between machines.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.calibration.sketch import BUCKETS, Sketch, merged
from pipeline.errors import InputError
from pipeline.records import Format

_MAGIC = b"edge-deploy sketches 1\n"
_LARGEST_BYTES = 1 << 30  # of the content; 10,000 tensors have 200 MB. A damaged file must not fill the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchFile:
    """The sketches of a float model's tensors over some samples.

    `model` is the SHA-256 of the float model's file, `samples` are the digests of the preprocessed samples.
    """

    format: Format
    model: str
    samples: tuple[str, ...]
    sketches: Mapping[str, Sketch]

    def content(self) -> bytes:
        """The canonical bytes, uncompressed."""
        names = sorted(self.sketches)
        ordered = [self.sketches[name] for name in names]
        header = {
            "format": self.format,
            "model": self.model,
            "samples": sorted(self.samples),
            "tensors": [
                {"name": name, "low": sketch.low.hex(), "high": sketch.high.hex(), "buckets": len(sketch.counts)}
                for name, sketch in zip(names, ordered, strict=True)
            ],
        }
        ordinals = _joined([sketch.ordinals for sketch in ordered], "<u2")
        counts = _joined([sketch.counts for sketch in ordered], "<u8")
        # Low bytes together, then the next: most of the higher ones are zero.
        planes = counts.view(np.uint8).reshape(-1, 8).T.tobytes()
        return json.dumps(header, sort_keys=True).encode() + b"\n" + ordinals.tobytes() + planes

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes."""
        return hashlib.sha256(self.content()).hexdigest()

    def write(self, path: Path) -> None:
        path.write_bytes(_MAGIC + zlib.compress(self.content(), 9))


def read_sketches(path: Path) -> SketchFile:
    """Read a file of sketches.

    Raises:
        InputError: it is none, or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read: {error}", hint="give a .sketch file of a run's calibration/"
        ) from None
    if not data.startswith(_MAGIC):
        raise InputError(f"{path}: is no file of calibration sketches", hint="a run writes them to its calibration/")
    try:
        inflater = zlib.decompressobj()
        content = inflater.decompress(data[len(_MAGIC) :], _LARGEST_BYTES)
        if not inflater.eof:
            raise ValueError("it ends too early")
        return _decoded(content)
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise InputError(f"{path}: is damaged: {error}", hint="copy it again, or calibrate again") from None


def merge_files(files: Mapping[str, SketchFile]) -> SketchFile:
    """All observations together, by the name each file is spoken of; the order does not matter.

    Raises:
        InputError: they are of different models, or a sample would count twice.
    """
    (first_name, first), *others = files.items()
    seen = dict.fromkeys(first.samples, first_name)
    for name, other in others:
        if (other.format, other.model) != (first.format, first.model) or set(other.sketches) != set(first.sketches):
            raise InputError(
                f"{name} is not of the same float model as {first_name}",
                hint=f"only sketches of one exported file add up: {first.format} {first.model[:16]} "
                f"and {other.format} {other.model[:16]}",
            )
        twice = [sample for sample in other.samples if sample in seen]
        if twice:
            raise InputError(
                f"{name} and {seen[twice[0]]} share {len(twice)} samples, such as {twice[0][:16]}",
                hint="a shared sample would count twice: merge sets that are disjoint",
            )
        seen.update(dict.fromkeys(other.samples, name))
    return SketchFile(
        format=first.format,
        model=first.model,
        samples=tuple(sorted(seen)),
        sketches={name: merged(file.sketches[name] for file in files.values()) for name in sorted(first.sketches)},
    )


def _joined(arrays: Sequence[np.ndarray[Any, Any]], dtype: str) -> np.ndarray[Any, Any]:
    return np.concatenate([np.zeros(0, dtype), *(array.astype(dtype) for array in arrays)])


def _decoded(content: bytes) -> SketchFile:
    line, _, columns = content.partition(b"\n")
    header = json.loads(line)
    if header["format"] not in ("tflite", "onnx"):
        raise ValueError(f"format {header['format']!r} is not known")
    sizes = [int(tensor["buckets"]) for tensor in header["tensors"]]
    total = sum(sizes)
    if min(sizes, default=1) < 1 or len(columns) != 10 * total:
        raise ValueError("its columns have not the length its header says")
    ordinals = np.frombuffer(columns, "<u2", total).astype(np.uint16)
    planes = np.frombuffer(columns, np.uint8, 8 * total, 2 * total)
    counts = np.ascontiguousarray(planes.reshape(8, total).T).view("<u8").reshape(-1).astype(np.int64)
    sketches, start = {}, 0
    for tensor, size in zip(header["tensors"], sizes, strict=True):
        part = slice(start, start + size)
        start += size
        ascending = size > BUCKETS or (np.diff(ordinals[part].astype(np.int64)) > 0).all()
        low, high = float.fromhex(tensor["low"]), float.fromhex(tensor["high"])
        if not ascending or (counts[part] <= 0).any() or not -np.inf < low <= high < np.inf:
            raise ValueError(f"the sketch of {tensor['name']!r} contradicts itself")
        sketches[str(tensor["name"])] = Sketch(ordinals=ordinals[part], counts=counts[part], low=low, high=high)
    return SketchFile(
        format=header["format"],
        model=str(header["model"]),
        samples=tuple(map(str, header["samples"])),
        sketches=sketches,
    )
