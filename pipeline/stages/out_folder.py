"""The files beside the report: models, pictures, sketches; and what an earlier run left goes."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline import model_files
from pipeline.recipes import RECIPES
from pipeline.records import (
    Format,
    Picture,
    Ranges,
    Refusal,
    Report,
)
from pipeline.stages.context import Context


def with_pictures(context: Context, out: Path, report: Report) -> Report:
    """The report with its pictures as files under `pictures/`, named by content (most are shared by all candidates)."""
    folder = out / "pictures"
    wanted: set[str] = set()

    def placed(digest: str) -> str:
        if not digest:
            return ""
        name = f"{digest[:16]}.png"
        if name not in wanted:
            _place(context.store.path(digest), folder / name)
            wanted.add(name)
        return f"{folder.name}/{name}"

    def on_disk(picture: Picture) -> Picture:
        return replace(
            picture,
            input=placed(picture.input),
            reference=placed(picture.reference),
            candidate=placed(picture.candidate),
            error_map=placed(picture.error_map),
            truth=placed(picture.truth),
        )

    return replace(
        report, candidates=tuple(replace(c, pictures=tuple(map(on_disk, c.pictures))) for c in report.candidates)
    )


def copy_models(context: Context, out: Path, report: Report) -> None:
    """Give every candidate its file under `models/`, and those that were lowered for a device."""
    out.mkdir(parents=True, exist_ok=True)
    for candidate in report.candidates:
        if candidate.path:
            _place_model(context.store.path(candidate.sha256), out / candidate.path)
        for path, digest in {t.path: t.sha256 for t in candidate.targets.values() if t.path}.items():
            _place_model(context.store.path(digest), out / path)


def sketch_path(format: str) -> str:
    return f"calibration/{format}.sketch"


def copy_sketches(context: Context, out: Path, found: Mapping[Format, Ranges | Refusal]) -> None:
    """Give the observations a place beside the models: what later data is compared with and merged into."""
    for format, ranges in found.items():
        if isinstance(ranges, Ranges):
            _place(context.store.path(ranges.sketch), out / sketch_path(format))


def _place_model(blob: Path, path: Path) -> None:
    """With the files that it wants in its folder; copies, for onnx reads no weights from a file with a second name."""
    for name in _beside(blob, path):
        there = path.parent / name
        if not there.is_file() or there.stat().st_size != (blob.parent / name).stat().st_size:
            _place(blob.parent / name, there)
    _place(blob, path)


def _beside(blob: Path, path: Path) -> tuple[str, ...]:
    return model_files.beside("onnx", blob) if path.suffix == ".onnx" else ()


def _place(blob: Path, path: Path) -> None:
    """Copy under a hidden name and rename, so that no file is ever half there."""
    path.parent.mkdir(exist_ok=True)
    staged = path.with_name(f".{path.name}.part")
    try:
        shutil.copyfile(blob, staged)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def sweep(out: Path, report: Report) -> None:
    """Take away what an earlier run left and this report does not name; last, so that an interrupted run loses none."""
    wanted = {c.path for c in report.candidates} | {c.path for c in report.calibrations.values()}
    for candidate in report.candidates:
        wanted |= {found.path for found in candidate.targets.values()}
        for picture in candidate.pictures:
            wanted |= {picture.input, picture.reference, picture.candidate, picture.error_map, picture.truth}
    paths = {c.path for c in report.candidates} | {t.path for c in report.candidates for t in c.targets.values()}
    for path in (out / path for path in paths if path.endswith(".onnx")):
        wanted |= {f"models/{name}" for name in (_beside(path, path) if path.is_file() else ())}
    # Only names that we give: the folder may be one where the user keeps models and pictures too.
    ours = {"models": "|".join(map(re.escape, RECIPES)), "pictures": "[0-9a-f]{16}", "calibration": "tflite|onnx"}
    for folder, stems in ours.items():
        named = re.compile(rf"\.?(?:{stems})(?:\.lowered-[0-9a-f]{{8}})?\.(?:tflite|onnx|pt|png|sketch)(?:\.part)?")
        for file in (out / folder).iterdir() if (out / folder).is_dir() else ():
            given = named.fullmatch(file.name) or (folder == "models" and model_files.is_ours(file.name))
            if f"{folder}/{file.name}" not in wanted and given:
                file.unlink()
