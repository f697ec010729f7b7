"""gate: judge the evidence; report: write it down. Neither touches a device."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline.fit.records import Fit
from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.recipes.recipe import recipe
from pipeline.records import (
    Artifact,
    CalibrationReport,
    CandidateReport,
    Decision,
    Format,
    Measured,
    Prepared,
    Pushed,
    Quality,
    Ranges,
    Refusal,
    Report,
    Searched,
    SearchReport,
    Sensitivity,
    SourceReport,
)
from pipeline.release.records import Released
from pipeline.stages.candidate_report import candidate_report
from pipeline.stages.context import Context, Progress
from pipeline.stages.devices import fitting
from pipeline.stages.evidence import budgets, evidence_of
from pipeline.stages.export import model_path
from pipeline.stages.gains import with_gain
from pipeline.stages.gate import decide_by_class
from pipeline.stages.judging import Evidence
from pipeline.stages.out_folder import copy_models, copy_sketches, sketch_path, sweep, with_pictures
from targets.records import Failed, TargetSpec

_BLOCKS_SHOWN = 12  # of the ranking; the rest lose next to nothing


def gate_step(
    context: Context,
    targets: Sequence[TargetSpec],
    quantized: Mapping[str, Step],
    validated: Mapping[str, Step],
    pushed: Mapping[str, Step],
    measured: Mapping[str, Step],
) -> Step:
    """The verdicts and the choice."""

    def run(results: Results, report: Progress) -> Decision:
        evidence: dict[str, dict[str, Evidence]] = {}
        for place, step in measured.items():
            found, there = results[step], results[pushed[place]]
            fits = there.fits if isinstance(there, Pushed) else {}
            pairs = {name: (results[quantized[name]], results[validated[name]]) for name in quantized}
            candidates = {
                name: fitting(artifact, quality, fits.get(name))
                for name, (artifact, quality) in pairs.items()
                if isinstance(artifact, Artifact) and isinstance(quality, Quality)
            }
            evidence[place] = evidence_of(candidates, found, there) if isinstance(found, Measured) else {}
        classes: dict[str, list[str]] = {}
        for target in targets:
            classes.setdefault(target.device_class, []).append(target.name)
        return decide_by_class(evidence, classes, budgets(context), context.loaded.config.choose)

    return Step(
        stage="gate",
        name="gate",
        run=run,
        records=(Decision,),
        needs=(*quantized.values(), *validated.values(), *pushed.values(), *measured.values()),
        settings={"budgets": context.loaded.budgets_as_written, "choose": context.loaded.config.choose},
        reusable=False,
        tolerant=True,
    )


def report_step(
    context: Context,
    out: Path,
    prepared: Step,
    calibrated: Mapping[Format, Step],
    released: Step,
    sensitive: Mapping[Format, Step],
    searched: Mapping[str, Step],
    quantized: Mapping[str, Step],
    validated: Mapping[str, Step],
    pushed: Mapping[str, Step],
    measured: Mapping[str, Step],
    gated: Step,
) -> Step:
    """The report and the candidates' files in `out`."""

    def run(results: Results, report: Progress) -> Report:
        from pipeline.reporting.files import write_all

        source: Prepared = results[prepared]
        decision: Decision = results[gated]
        release: Released | Refusal = results[released]
        candidates = tuple(
            candidate_report(
                context,
                name,
                results[quantized[name]],
                results[validated[name]],
                {target: results[step] for target, step in measured.items()},
                decision,
                {t: fit for t, step in pushed.items() if (fit := _fit(results[step], name))},
            )
            for name in quantized
        )
        facts = {
            target: record.facts if isinstance(record, Pushed) else _failed(record)
            for target, step in pushed.items()
            for record in (results[step],)
        }
        candidates = tuple(with_gain(candidate, candidates) for candidate in candidates)
        whole = Report(
            name=context.loaded.config.name or model_path(context).stem,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            status=decision.status,
            chosen=decision.chosen,
            chosen_by_target=decision.chosen_by_target,
            reason=decision.reason,
            objective=context.loaded.config.choose,
            baseline=_baseline(candidates, decision),
            source=SourceReport(
                path=context.loaded.config.source.model,
                sha256=str(prepared.settings["model"]),  # as it was when the run began
                kind=source.source_kind,
                inputs=source.inputs,
                outputs=source.outputs,
            ),
            calibration=source.calibration,
            test=source.test,
            budgets=context.loaded.budgets_as_written,
            candidates=candidates,
            facts=facts,
            tools={**source.tools, **versions("edge-deploy-pipeline", "ai-edge-litert", "onnxruntime", "numpy")},
            release=release.id if isinstance(release, Released) else "",
            bundle=release.file if isinstance(release, Released) else "",
            released=_released(release),
            searches=tuple(
                _search(results[step], results[sensitive[recipe(name).format]])
                for name, step in searched.items()
                if isinstance(results[step], Searched)
            ),
            calibrations=_calibrations(context, {format: results[step] for format, step in calibrated.items()}),
        )
        copy_models(context, out, whole)
        copy_sketches(context, out, {format: results[step] for format, step in calibrated.items()})
        whole = with_pictures(context, out, whole)
        write_all(whole, out, out)
        sweep(out, whole)
        return whole

    searching = (*calibrated.values(), *sensitive.values(), *searched.values())
    judging = (*quantized.values(), *validated.values(), *pushed.values(), *measured.values(), gated)
    steps = (prepared, released, *searching, *judging)
    return Step(stage="report", name="report", run=run, records=(Report,), needs=steps, reusable=False, tolerant=True)


def _search(found: Searched, sensitivity: Sensitivity) -> SearchReport:
    return SearchReport(
        recipe=found.recipe,
        sensitivity=sensitivity.blocks[:_BLOCKS_SHOWN],
        blocks_total=len(sensitivity.blocks),
        int8_sqnr_db=sensitivity.int8_sqnr_db,
        chosen=found.chosen,
        trials=found.trials,
        pareto=found.pareto,
        cost=found.cost,
        findings=found.findings,
    )


def _baseline(candidates: Sequence[CandidateReport], decision: Decision) -> str | None:
    """The float32 candidate of the chosen one's format, so that percentages compare like with like; else any."""
    floats = {c.format: c.recipe for c in candidates if c.recipe.endswith("-float32") and c.path}
    chosen = next((c for c in candidates if c.recipe == decision.chosen), None)
    if chosen and chosen.format in floats:
        return floats[chosen.format]
    return floats.get("tflite") or floats.get("onnx") or floats.get("pt")


def _released(release: Released | Refusal) -> str:
    """What became of the choice, in a sentence."""
    if isinstance(release, Refusal):
        return f"no release: {release.reason}"
    what = f"release {release.sequence}" + ("" if release.new else ", as before: nothing in it has changed")
    signed = f"signed by {release.signed_by}" if release.signed_by else "not signed"
    without = "".join(f"; no model for {name}: {reason}" for name, reason in release.without.items())
    return f"{what}, {signed}{without}"


def _fit(record: object, recipe: str) -> Fit | None:
    return record.fits.get(recipe) if isinstance(record, Pushed) else None


def _failed(record: object) -> Failed:
    if isinstance(record, Failed):
        return record
    return Failed(code="not-pushed", message=record.reason if isinstance(record, Refusal) else "not pushed")


def _calibrations(context: Context, found: Mapping[Format, Ranges | Refusal]) -> dict[str, CalibrationReport]:
    return {
        format: CalibrationReport(
            path=sketch_path(format),
            sketch_digest=ranges.sketch_digest,
            model=ranges.model,
            method=ranges.method,
            percentile=ranges.percentile,
            chosen_methods=ranges.chosen_methods,
            seed=context.loaded.config.calibration_data().seed,
            samples=ranges.samples,
            tensors=ranges.tensors,
            passes=ranges.passes,
            predicted_peak_bytes=ranges.predicted_peak_bytes,
            budget_bytes=ranges.budget_bytes,
            coverage=ranges.coverage,
            unstable_tensors=ranges.unstable_tensors,
            findings=ranges.findings,
        )
        for format, ranges in found.items()
        if isinstance(ranges, Ranges)
    }
