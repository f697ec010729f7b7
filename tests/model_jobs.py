"""One model of the wild the whole way from source to validated candidates, in one job of the worker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import DeployError
from pipeline.exporters.source import open_source
from pipeline.plugins import load_plugin
from pipeline.samples import DataSection
from pipeline.stages import calibrate_jobs, candidate_jobs, export_jobs, validate_jobs
from pipeline.stages.export import float_job

_DATA = DataSection(calibrate="calibrate.npz", test="test.npz")
_FREE = 2  # what a free dimension becomes, other than a batch


def _silent(done: int, total: int) -> None:
    pass


def random_samples(*, kind: str, model: Path, folder: Path, report: Callable[[int, int], None]) -> None:
    """Two samples for each set, of the shapes and data types that the model declares."""
    source = open_source(kind, model, signature="serving_default", scratch=folder)
    for part, seed in (("calibrate", 1), ("test", 2)):
        random, arrays = np.random.default_rng(seed), {}
        for spec in source.inputs:
            shape = [(1 if place == 0 else _FREE) if size < 0 else size for place, size in enumerate(spec.shape)]
            dtype = np.dtype(spec.dtype)
            made = [random.normal(size=shape) if dtype.kind == "f" else random.integers(0, 2, shape) for _ in range(2)]
            arrays[spec.name] = np.stack(made).astype(dtype)
        np.savez(folder / f"{part}.npz", **arrays)


def whole_way(
    *, kind: str, model: Path, folder: Path, recipes: tuple[str, ...], report: Callable[[int, int], None]
) -> dict[str, str]:
    """Recipe → "" or why it was refused; what is wrong with the source is raised."""
    format = "tflite" if kind.endswith("tflite") else "onnx"
    random_samples(kind=kind, model=model, folder=folder, report=_silent)
    calibrate, test = _DATA.spec("calibrate"), _DATA.spec("test")
    source, exported = folder / "source", folder / "exported"
    for made in (source, exported):
        made.mkdir()
    prepared = export_jobs.prepare(
        kind=kind,
        model=model,
        signature="",
        shapes={},
        calibrate=calibrate,
        test=test,
        base=folder,
        scratch=source,
        report=_silent,
    )
    job, more = float_job(format, kind, 17)
    load_plugin(f"pipeline.stages.{job}")(source=source / "model", scratch=exported, report=_silent, **more)
    common: dict[str, Any] = {"base": folder, "report": _silent, "inputs": prepared["inputs"]}
    float_model, reference = exported / "model", source / "reference"
    export_jobs.compare_hop(format=format, model=float_model, reference=reference, calibrate=calibrate, **common)
    if format == "onnx":
        export_jobs.make_quantizable(
            calibrate=calibrate, inputs=prepared["inputs"], base=folder, scratch=exported, report=_silent
        )
    found = {}
    for name in recipes:
        output = folder / f"{name}.{format}"
        try:
            ranged = name.endswith("-int8") and "dynamic" not in name
            if ranged:
                calibrate_jobs.calibrate(
                    format=format, model=float_model, calibrate=calibrate, scratch=exported, **common
                )
            candidate_jobs.quantize(
                name=name,
                source=source / "model",
                float_model=float_model,
                ranges=exported / "ranges" if ranged else None,
                calibrate=calibrate,
                precisions={},
                repairs=(),
                output=output,
                scratch=exported,
                **common,
            )
            validate_jobs.validate(
                format=format,
                model=output,
                reference=reference,
                test=test,
                metrics=(),
                scratch=exported,
                **common,
            )
            found[name] = ""
        except DeployError as error:
            found[name] = error.message
        except Exception as error:  # a converter's own, which the pipeline would report in these words
            found[name] = f"{type(error).__name__}: {error}"
    return found
