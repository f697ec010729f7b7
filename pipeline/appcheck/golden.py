"""The golden question of a release, asked of the app's own bytes on this host: the last copy may have gone wrong."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pipeline.appcheck.app import App, Model
from pipeline.appcheck.archive import opened
from pipeline.appcheck.asked import Asked, ReleasedModels
from pipeline.appcheck.modelcheck import ModelCheck
from pipeline.errors import ConversionFailed
from pipeline.worker import Worker

HOST = "this host"


def has_golden(app: App, asked: Asked) -> bool:
    """Whether there is a model of which a bundle has the golden sample."""
    return any(_release(model, asked) is not None for model in app.models)


def golden_checks(path: Path, app: App, asked: Asked, worker: Worker) -> Iterator[ModelCheck]:
    """One row for each model of a bundle; a model that aborts a runtime ends the worker, not us."""
    for model in app.models:
        release = _release(model, asked)
        if release is not None:
            yield _check(path, model, release, worker)


def _release(model: Model, asked: Asked) -> ReleasedModels | None:
    return next((r for r in asked.releases if r.opened and model.sha256 in _goldens(r)), None)


def _goldens(release: ReleasedModels) -> dict[str, Any]:
    assert release.opened
    return {found.blob: found for found in release.opened.classes.values() if found.golden}


def _check(path: Path, model: Model, release: ReleasedModels, worker: Worker) -> ModelCheck:
    assert release.opened
    known = _goldens(release)[model.sha256]
    pairs = [(release.opened.blob(one.inputs), release.opened.blob(one.expected)) for one in known.golden]
    status: Literal["pass", "fail"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"model.{model.format}"
        with opened(path) as archive, file.open("wb") as copy:
            for chunk in archive.chunks(model.entry):
                copy.write(chunk)
        try:
            steps, finite = worker.call(
                "pipeline.appcheck.golden:ask", None, model=file, format=model.format, pairs=pairs
            )
        except ConversionFailed as error:
            status, found, why = "fail", "none", f"cannot be run here: {error.message}"
        else:
            right = finite and steps <= known.max_steps
            status, found = ("pass" if right else "fail"), f"{steps:.3g} steps" if finite else "NaN or infinity"
            why = "" if right else f"answers {found} from the golden outputs (tolerated: {known.max_steps:g} steps)"
    return ModelCheck(
        rule="golden-outputs",
        what="golden outputs",
        file=model.entry.name,
        where=HOST,
        found=found,
        limit=f"{known.max_steps:g} steps",
        status=status,
        detail=why,
        remedy="" if status == "pass" else "ship the file that `deploy run` wrote",
    )


def ask(report: Any, *, model: Path, format: str, pairs: list[tuple[Path, Path]]) -> tuple[float, bool]:
    """In the worker: the largest distance from the golden outputs in steps, and whether all are finite."""
    from targets.agent.edge.answers import compare, load_arrays
    from targets.agent.edge.runtimes import OnnxModel, TfliteModel, import_runtime

    worst, all_finite = 0.0, True
    module = import_runtime(format)[2]
    for inputs, expected in pairs:
        loaded = TfliteModel(module) if format == "tflite" else OnnxModel(module)
        loaded.load(str(model), 1, load_arrays(str(inputs)))
        loaded.run()
        steps, finite = compare(loaded.outputs(), load_arrays(str(expected)))
        worst, all_finite = max(worst, steps), all_finite and finite
    return worst, all_finite
