"""The pictures of the image models, embedded: each sample once, with every candidate's answer beside it."""

import base64
from dataclasses import dataclass
from pathlib import Path

from pipeline.records import Report
from pipeline.reporting.comparison import sqnr

# Three samples show what kind of damage a recipe does; each costs about a megabyte of the page.
SHOWN = 3
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    caption: str
    source: str  # data: URI, empty when the file is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    recipe: str
    detail: str
    chosen: bool
    candidate: Image
    error_map: Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    name: str
    shared: tuple[Image, ...]  # input, truth, float answer
    pairs: tuple[Pair, ...]


def samples(report: Report, folder: Path) -> tuple[Sample, ...]:
    """The first few samples. `folder` is where the records' picture paths start, or where the files themselves lie."""
    names = list(dict.fromkeys(p.sample for candidate in report.candidates for p in candidate.pictures))
    return tuple(_sample(report, name, folder) for name in names[:SHOWN])


def omitted(report: Report) -> int:
    """How many samples have pictures that the page does not show."""
    return max(0, len({p.sample for candidate in report.candidates for p in candidate.pictures}) - SHOWN)


def _sample(report: Report, name: str, folder: Path) -> Sample:
    shared: tuple[Image, ...] = ()
    pairs = []
    for candidate in report.candidates:
        for picture in candidate.pictures:
            if picture.sample != name:
                continue
            if not shared:
                every = (("Input", picture.input), ("Truth", picture.truth), ("Float answer", picture.reference))
                shared = tuple(_image(caption, path, folder) for caption, path in every if path)
            pairs.append(
                Pair(
                    recipe=candidate.recipe,
                    detail=sqnr(candidate),
                    chosen=candidate.recipe == report.chosen,
                    candidate=_image("answer", picture.candidate, folder),
                    error_map=_image(f"error ×{picture.error_gain:.3g}", picture.error_map, folder),
                )
            )
    return Sample(name=name, shared=shared, pairs=tuple(pairs))


def _image(caption: str, path: str, folder: Path) -> Image:
    content = b""
    for file in (folder / path, folder / Path(path).name):
        if file.is_file():
            content = file.read_bytes()
            break
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}" if content.startswith(_PNG) else ""
    return Image(caption=caption, source=source)
