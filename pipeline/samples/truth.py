"""Right answers that lie beside the samples: arrays, label files, class folders, or a folder of images."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, UsageError

from .array_file import open_arrays
from .files import check_file, resolve
from .image_file import list_images, load_image
from .preprocess import apply_steps
from .spec import ArrayTruth, FolderTruth, ImageTruth, Truth

Answer = Callable[[int], NDArray[Any]]  # index of the sample in its whole set -> truth without batch axis


def open_truth(truth: Truth | None, files: Sequence[Path], source: str, base: Path) -> Answer | None:
    """Open the truth of a set of `files` (paths relative to the set; for arrays, one made-up path per sample)."""
    if truth is None:
        return None
    if isinstance(truth, FolderTruth):
        return _images(truth, files, base)
    if isinstance(truth, ImageTruth | ArrayTruth) or truth == "next-token":
        raise UsageError(
            f"truth: this form does not fit {source}",
            hint="{image: …} is for images, {array: …} for .npz, next-token for text",
        )
    if truth == "folders":
        return _class_folders(files, source)
    path = resolve(truth, base)
    if path.is_dir():
        return _images(FolderTruth(folder=truth), files, base)
    check_file(path, "truth file")
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return _array_file(path, len(files), source)
    if suffix in (".csv", ".txt"):
        return _labels(path, files, source)
    raise UsageError(
        f"{path}: truth of this kind is not known", hint="use .npy, .npz, .csv, .txt or a folder of images"
    )


def _aligned(path: Path, have: int, want: int, source: str) -> None:
    if have != want:
        raise InputError(
            f"{path}: {have} right answers for the {want} samples of {source}",
            hint="one answer per sample, in the order of the samples",
        )


def _array_file(path: Path, count: int, source: str) -> Answer:
    arrays = open_arrays(path)
    if len(arrays) != 1:
        raise InputError(f"{path}: holds {len(arrays)} arrays: {', '.join(arrays)}", hint="keep only the truth in it")
    [array] = arrays.values()
    _aligned(path, len(array), count, source)
    return lambda index: np.asarray(array[index])


def _class_folders(files: Sequence[Path], source: str) -> Answer:
    for file in files:
        if len(file.parts) < 2:
            raise InputError(f"{source}/{file}: lies in no class folder", hint="`truth: folders` takes class/image.png")
    classes = {name: number for number, name in enumerate(sorted({file.parts[0] for file in files}))}
    numbers = [classes[file.parts[0]] for file in files]
    return lambda index: np.asarray(numbers[index], dtype=np.int64)


def _images(truth: FolderTruth, files: Sequence[Path], base: Path) -> Answer:
    folder = resolve(truth.folder, base)
    by_stem: dict[str, Path] = {}
    for path in list_images(folder):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in by_stem:
            raise InputError(f"{path} and {by_stem[stem]}: two truth images with one stem", hint="keep one of them")
        by_stem[stem] = path
    for file in files:
        if file.with_suffix("").as_posix() not in by_stem:
            raise InputError(
                f"{file}: {folder} holds no truth image with this stem", hint="add it, or remove the sample"
            )
    paths = [by_stem[file.with_suffix("").as_posix()] for file in files]

    def answer(index: int) -> NDArray[Any]:
        try:
            return apply_steps(truth.preprocess, load_image(paths[index]))
        except ValueError as error:
            raise InputError(f"{paths[index]}: {error}", hint="change the steps of `truth`, or the image") from error

    return answer


def _labels(path: Path, files: Sequence[Path], source: str) -> Answer:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text: {error}", hint="save the labels as UTF-8") from error
    rows = [(number, row) for number, row in enumerate(csv.reader(lines), 1) if row]
    if rows and path.suffix.lower() == ".csv" and [cell.strip() for cell in rows[0][1]] == ["file", "label"]:
        by_name: dict[str, NDArray[Any]] = {}
        for number, row in rows[1:]:
            if len(row) != 2:
                raise InputError(f"{path}:{number}: {len(row)} cells where `file,label` has 2", hint="mend this line")
            if row[0].strip() in by_name:
                raise InputError(f"{path}:{number}: {row[0].strip()} has a label already", hint="keep one of the lines")
            by_name[row[0].strip()] = _label(row[1], path, number)
        missing = [file.as_posix() for file in files if file.as_posix() not in by_name]
        if missing:
            raise InputError(
                f"{path}: has no label for {missing[0]}", hint=f"{len(missing)} of {len(files)} files have none"
            )
        return lambda index: by_name[files[index].as_posix()]
    if rows and path.suffix.lower() == ".csv" and [cell.strip() for cell in rows[0][1]] == ["label"]:
        rows = rows[1:]
    for number, row in rows:
        if len(row) != 1:
            raise InputError(
                f"{path}:{number}: {len(row)} columns", hint="one label a line, or the header `file,label`"
            )
    labels = [_label(row[0], path, number) for number, row in rows]
    _aligned(path, len(labels), len(files), source)
    return lambda index: labels[index]


def _label(text: str, path: Path, line: int) -> NDArray[Any]:
    text = text.strip()
    try:
        return np.asarray(int(text), dtype=np.int64)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(
            f"{path}:{line}: the label {text!r} is not a number",
            hint="write the index of the class, as the model's output orders them",
        )
    return np.asarray(value, dtype=np.float32)
