"""The seam: what every kind of sample source is, and which kind a path names."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from pipeline.errors import InputError, UsageError
from targets.records import TensorSpec

from .files import resolve
from .sample import Raw
from .spec import DataSpec
from .user_function import is_function_reference

KINDS: Mapping[str, str] = {
    "images": "pipeline.samples.images:ImageFolder",
    "arrays": "pipeline.samples.arrays:ArrayFile",
    "text": "pipeline.samples.text:TextFile",
    "function": "pipeline.samples.functions:FunctionSource",
}


class Source(Protocol):
    """Samples as they lie there, before any declared step.

    Built from (spec, signature, base); InputError or UsageError when it can be told at once that it will not do.
    """

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Iterator[Raw]:
        """Yield the samples at these ascending places, holding no more than one at a time."""
        ...


def kind_of(spec: DataSpec, base: Path) -> str:
    """Return the kind a path names; UsageError when it names none."""
    path = resolve(spec.path, base)
    if is_function_reference(spec.path) and not path.exists():
        return "function"
    if path.is_dir():
        return "images"
    if path.suffix.lower() in (".npz", ".npy"):
        return "arrays"
    if spec.tokenizer or path.suffix.lower() == ".txt":
        return "text"
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder", hint="paths are relative to deploy.yaml's folder")
    raise UsageError(
        f"{path}: samples of this kind are not known",
        hint="use a folder of images, .npz, .npy, a text with `tokenizer`, or `file.py:function`",
    )


def open_source(spec: DataSpec, signature: Sequence[TensorSpec], base: Path) -> Source:
    """Open the source a path names."""
    module, _, name = KINDS[kind_of(spec, base)].partition(":")
    return cast(Source, getattr(import_module(module), name)(spec, signature, base))
