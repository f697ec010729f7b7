"""The models of an app through the pipeline's own stages: the test set, task metrics, and the quality gate.

The app's own bytes are run, not the release's, in the worker process, for a damaged model aborts a runtime. The float
answers they are compared with are those of the run that made them; kept steps are used again.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pipeline.appcheck.app import App, Finding, Model
from pipeline.appcheck.archive import opened
from pipeline.appcheck.asked import Asked
from pipeline.appcheck.golden import HOST
from pipeline.appcheck.modelcheck import ModelCheck
from pipeline.appcheck.rules.finding import unjudged
from pipeline.config_file import LoadedConfig
from pipeline.errors import ConversionFailed
from pipeline.flow import Observer, Step, execute
from pipeline.records import Prepared, Quality
from pipeline.stages.context import Context
from pipeline.stages.evidence import budgets
from pipeline.stages.judging import Budgets, quality_failures
from pipeline.stages.run import Selection, steps
from pipeline.store import Store
from pipeline.worker import Worker

Display = Callable[[Sequence[Step]], AbstractContextManager[Observer]]


def run_models(
    path: Path, app: App, asked: Asked, loaded: LoadedConfig, store: Store, worker: Worker, display: Display
) -> tuple[tuple[Finding, ...], tuple[ModelCheck, ...]]:
    """What the quality gate says of the models that are of a release; the others are said not to have been run.

    Raises:
        DeployError: the source model or the data of deploy.yaml cannot be used.
    """
    ours = [model for model in app.models if _of_release(model, asked)]
    found = [
        unjudged(
            "model-not-run",
            model.entry,
            "is of no release that was given, so it is not known which test set is its own",
            "give its run: --release FOLDER with --config deploy.yaml of that run",
        )
        for model in app.models
        if model not in ours
    ]
    if not ours:
        return tuple(found), ()
    context = Context(loaded=loaded, store=store, worker=worker)
    ordered, _ = steps(context, Selection(), path.parent)
    first = [step for step in ordered if step.stage == "export" and Prepared in step.records]
    with store.exclusive():
        with display(first) as observer:
            prepared = execute(first, store, observer)[first[-1]]
        if not isinstance(prepared, Prepared):
            detail = f"its float model gives no answers to compare with: {prepared.reason}"
            return (*found, *(unjudged("model-not-run", model.entry, detail, prepared.hint) for model in ours)), ()
        checks = [_judged(path, model, context, prepared) for model in ours]
    return tuple(found), tuple(checks)


def _of_release(model: Model, asked: Asked) -> bool:
    return model.format != "ort" and any(model.sha256 in release.candidates for release in asked.releases)


def _judged(path: Path, model: Model, context: Context, prepared: Prepared) -> ModelCheck:
    limits = budgets(context)
    try:
        quality = _quality(path, model, context, prepared)
    except ConversionFailed as error:
        remedy = error.hint or "ship the file that `deploy run` wrote"
        return _row(model, "none", limits, f"cannot be run here: {error.message}", remedy)
    failures = "; ".join(quality_failures(quality, limits))
    detail = f"over {quality.samples} test samples: {failures}" if failures else ""
    return _row(model, _shown(quality), limits, detail, "ship a candidate that passes; `deploy run` names them")


def _row(model: Model, found: str, limits: Budgets, detail: str, remedy: str) -> ModelCheck:
    asked = [f"{name} −{drop:g}" for name, drop in limits.max_drop.items()]
    asked += [f"SQNR {limits.min_fidelity_db:g} dB"] if limits.min_fidelity_db is not None else []
    return ModelCheck(
        rule="model-fails",
        what="quality gate",
        file=model.entry.name,
        where=HOST,
        found=found,
        limit=", ".join(asked),
        status="fail" if detail else "pass",
        detail=detail,
        remedy=remedy,
    )


def _shown(quality: Quality) -> str:
    parts = [f"{name} {value.value:.4g}" for name, value in quality.metrics.items()]
    return ", ".join([*parts, f"SQNR {quality.fidelity['sqnr_db']:.1f} dB"])


def _quality(path: Path, model: Model, context: Context, prepared: Prepared) -> Quality:
    with context.scratch() as scratch:
        file = scratch / f"model.{model.format}"
        with opened(path) as archive, file.open("wb") as copy:
            for chunk in archive.chunks(model.entry):
                copy.write(chunk)
        fields = context.worker.call(
            "pipeline.stages.validate_jobs:validate",
            None,
            format=model.format,
            model=file,
            reference=context.store.path(prepared.reference),
            test=context.loaded.config.data.spec("test"),
            inputs=prepared.inputs,
            metrics=context.loaded.config.quality.metrics,
            base=context.base,
            scratch=scratch,
        )
    return Quality(
        recipe="",
        fidelity=fields["fidelity"],
        metrics=fields["metrics"],
        samples=fields["samples"],
        golden_inputs="",
        golden_outputs="",
    )
