"""What kind of model a path holds, judged by its content; what we cannot take is refused by name with advice."""

import json
import zipfile
from pathlib import Path
from typing import Literal

from pipeline.errors import InputError
from pipeline.exporters.detect_torch import check_weights, is_pytorch_function, refuse_checkpoint

SourceKind = Literal["keras", "saved_model", "onnx", "pytorch"]

_LATER = "export it to ONNX, a SavedModel or a Keras 3 .keras file first; this version does not read it"
_GGML = (b"ggml", b"lmgg", b"fmgg", b"tjgg")  # the magic is an integer, stored with its low byte first
_PICKLES = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
# Magic bytes at the start of a file -> what it is, and what to do about it.
_REFUSED_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "is a git-lfs pointer, not the model itself", "run `git lfs pull`"),
    (
        b"GGUF",
        "is a GGUF language model (llama.cpp)",
        "GGUF is quantized already and runs in llama.cpp; give the original model",
    ),
    *((magic, "is a GGML language model (llama.cpp)", "give the original model") for magic in _GGML),
    (b"7767517", "is an ncnn parameter file", "give the model it was converted from"),
    (b"\xdd\x85\x76\x00", "is a binary ncnn parameter file", "give the model it was converted from"),
    (
        b"\x89HDF\r\n\x1a\n",
        "is an HDF5 file: a Keras 2 model, or weights without a model",
        "load it with tf_keras and save it as a SavedModel: model.export('folder')",
    ),
    *(
        (
            magic,
            "is a Python pickle (PyTorch, scikit-learn …), which may run any code when it is read",
            "of PyTorch, give source.model: file.py:function, which returns the module, or source.factory for a "
            "state_dict; of scikit-learn, export it with skl2onnx",
        )
        for magic in _PICKLES
    ),
    (b"\x1f\x8b", "is a gzip archive", "unpack it and give what is inside"),
    (b"<!DOCTYPE", "is a web page, not a model", "the download went wrong: fetch the file again"),
    (b"<html", "is a web page, not a model", "the download went wrong: fetch the file again"),
)
_MIN_BYTES = 16


def detect(path: Path, factory: str = "") -> SourceKind:
    """Say what `path` holds; with a `factory` it holds the weights of a PyTorch module.

    Raises:
        InputError: missing, empty, cut off, or a format that is no source for us; the message names it.
    """
    if factory:
        check_weights(path)
        return "pytorch"
    if is_pytorch_function(path):
        return "pytorch"
    if not path.exists():
        raise InputError(f"{path}: there is no such model", hint="check source.model in deploy.yaml")
    return _detect_folder(path) if path.is_dir() else _detect_file(path)


def _detect_folder(path: Path) -> SourceKind:
    graph = path / "saved_model.pb"
    if graph.exists():
        if graph.stat().st_size == 0:
            raise InputError(f"{graph}: the file is empty", hint="save or copy the model again, the whole folder")
        _refuse_by_magic(graph)
        if not (path / "variables").is_dir() and graph.stat().st_size < 1024:
            raise InputError(f"{path}: the SavedModel has no variables folder", hint="copy the whole folder")
        return "saved_model"
    if (path / "model.json").exists():
        _refuse_tfjs(path / "model.json")
    if (path / "model.bin").exists() and list(path.glob("*vocabulary*")):
        raise InputError(f"{path}: is a CTranslate2 model", hint="give the model it was converted from")
    raise InputError(
        f"{path}: a folder without saved_model.pb", hint="give a SavedModel folder, a .keras file or an .onnx file"
    )


def _detect_file(path: Path) -> SourceKind:
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: the file is empty", hint="fetch or export the model again")
    head = _refuse_by_magic(path)
    if size < _MIN_BYTES:
        raise InputError(f"{path}: only {size} bytes, no model is that small", hint="fetch or export it again")
    if head[4:8] == b"TFL3":
        raise InputError(
            f"{path}: is a TFLite file, the result of a conversion",
            hint="give the Keras model or SavedModel it was made from",
        )
    if head[8:10] == b'{"':  # an 8-byte length, then JSON
        raise InputError(f"{path}: is a safetensors file: weights without a model", hint=_LATER)
    if head.startswith(b"PK"):
        return _detect_zip(path)
    if path.suffix == ".keras":
        raise InputError(
            f"{path}: is no Keras 3 file (not a zip archive)", hint="save it with keras 3: model.save('m.keras')"
        )
    if path.suffix == ".json":
        _refuse_tfjs(path)
    if path.suffix == ".pb":
        raise InputError(
            f"{path}: is a TensorFlow graph without its folder",
            hint="give the SavedModel folder; frozen TensorFlow 1 graphs are not read",
        )
    if path.suffix == ".onnx" or head[:1] == b"\x08":  # field 1 (ir_version) of an ONNX ModelProto comes first
        return "onnx"
    raise InputError(
        f"{path}: of no model format we know", hint="give a .keras file, a SavedModel folder or an .onnx file"
    )


def _refuse_by_magic(path: Path) -> bytes:
    """The file's first bytes, unless they are those of something we refuse by name."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", hint="check its permissions") from None
    for magic, what, advice in _REFUSED_MAGIC:
        if head.startswith(magic):
            raise InputError(f"{path}: {what}", hint=advice)
    return head


def _detect_zip(path: Path) -> SourceKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise InputError(
            f"{path}: the archive is cut off or damaged ({error})", hint="fetch or save it again"
        ) from None
    if damaged:
        raise InputError(f"{path}: {damaged} inside the archive is damaged", hint="fetch or save it again")
    if {"config.json", "model.weights.h5"} <= names:
        return "keras"
    if path.suffix == ".pt2" or any("archive_format" in name for name in names):
        return "pytorch"
    if any(name.endswith("data.pkl") for name in names):
        with zipfile.ZipFile(path) as archive:
            refuse_checkpoint(path, archive)
    raise InputError(f"{path}: a zip archive, but no Keras 3 model", hint="give a .keras file saved by Keras 3")


def _refuse_tfjs(path: Path) -> None:
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return
    if isinstance(described, dict) and ("modelTopology" in described or "weightsManifest" in described):
        raise InputError(
            f"{path}: is a TensorFlow.js model", hint="give the Keras model or SavedModel it was made from"
        )
