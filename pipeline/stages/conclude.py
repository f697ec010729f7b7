"""gate: judge the evidence; report: write it down. Neither touches a device."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.flow import Results, Step
from pipeline.plugins import versions
from pipeline.quality.energy import energy_per_inference
from pipeline.quality.statistics import summarize
from pipeline.recipes import RECIPES
from pipeline.recipes.recipe import recipe
from pipeline.records import (
    Artifact,
    CalibrationReport,
    CandidateReport,
    Decision,
    Format,
    Measured,
    MetricValue,
    Picture,
    Prepared,
    Pushed,
    Quality,
    Ranges,
    Refusal,
    Release,
    Report,
    Searched,
    SearchReport,
    Sensitivity,
    SourceReport,
    TargetResult,
    Verdict,
    VerdictKind,
)
from pipeline.stages.context import Context, Progress
from pipeline.stages.export import model_path
from pipeline.stages.gains import with_gain
from pipeline.stages.gate import Budgets, Evidence, decide
from targets.records import Absent, Failed, Measurement, TargetSpec

_NS_PER_MS = 1e6
_BLOCKS_SHOWN = 12  # of the ranking; the rest lose next to nothing


def budgets(context: Context) -> Budgets:
    """deploy.yaml's budgets as the gate wants them."""
    asked = context.loaded.config.budgets
    return Budgets(
        size_bytes=asked.size,
        latency_p90_ms=asked.latency_p90,
        peak_memory_bytes=asked.peak_memory,
        energy_j=asked.energy,
        max_drop=asked.max_drop,
        min_fidelity_db=asked.min_fidelity_db,
    )


def gate_step(
    context: Context,
    targets: Sequence[TargetSpec],
    quantized: Mapping[str, Step],
    validated: Mapping[str, Step],
    measured: Mapping[str, Step],
) -> Step:
    """The verdicts and the choice."""

    def run(results: Results, report: Progress) -> Decision:
        evidence: dict[str, dict[str, Evidence]] = {}
        for target, step in measured.items():
            found = results[step]
            evidence[target] = {}
            for name in quantized:
                artifact, quality = results[quantized[name]], results[validated[name]]
                if isinstance(found, Measured) and isinstance(artifact, Artifact) and isinstance(quality, Quality):
                    evidence[target][name] = Evidence(artifact=artifact, quality=quality, measured=found.results[name])
        return decide(evidence, [t.name for t in targets], budgets(context), context.loaded.config.choose)

    return Step(
        stage="gate",
        name="gate",
        run=run,
        records=(Decision,),
        needs=(*quantized.values(), *validated.values(), *measured.values()),
        settings={"budgets": context.loaded.budgets_as_written, "choose": context.loaded.config.choose},
        reusable=False,
        tolerant=True,
    )


def report_step(
    context: Context,
    out: Path,
    prepared: Step,
    calibrated: Mapping[Format, Step],
    packaged: Step,
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
        release: Release | Refusal = results[packaged]
        candidates = tuple(
            _candidate(
                context,
                name,
                results[quantized[name]],
                results[validated[name]],
                {target: results[step] for target, step in measured.items()},
                decision,
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
            release=release.id if isinstance(release, Release) else "",
            searches=tuple(
                _search(results[step], results[sensitive[recipe(name).format]])
                for name, step in searched.items()
                if isinstance(results[step], Searched)
            ),
            calibrations=_calibrations(context, {format: results[step] for format, step in calibrated.items()}),
        )
        _copy_models(context, out, whole)
        _copy_sketches(context, out, {format: results[step] for format, step in calibrated.items()})
        whole = _with_pictures(context, out, whole)
        write_all(whole, out, out)
        _sweep(out, whole)
        return whole

    searching = (*calibrated.values(), *sensitive.values(), *searched.values())
    judging = (*quantized.values(), *validated.values(), *pushed.values(), *measured.values(), gated)
    steps = (prepared, packaged, *searching, *judging)
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


def _candidate(
    context: Context,
    name: str,
    artifact: Artifact | Refusal,
    quality: Quality | Refusal,
    measured: Mapping[str, Measured | Refusal],
    decision: Decision,
) -> CandidateReport:
    format = recipe(name).format
    if isinstance(artifact, Refusal):
        return _refused(name, format, artifact, None)
    if isinstance(quality, Refusal):
        return _refused(name, format, quality, artifact)
    targets = {
        target: _target_result(found.results[name], decision.verdicts[target][name])
        for target, found in measured.items()
        if isinstance(found, Measured)
    }
    verdict, reason = _overall(targets)
    return CandidateReport(
        recipe=name,
        format=format,
        path=f"models/{name}.{format}",
        sha256=artifact.blob,
        size_bytes=artifact.size_bytes,
        ops_total=artifact.ops_total,
        ops_quantized=artifact.ops_quantized,
        ops_left_float=artifact.ops_left_float,
        fidelity=quality.fidelity,
        metrics=_in_declared_order(context, quality.metrics),
        targets=targets,
        verdict=verdict,
        reason=reason,
        tools=artifact.tools,
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        findings=(*artifact.notes, *quality.findings),
        pictures=quality.pictures,
    )


def _in_declared_order(context: Context, metrics: Mapping[str, MetricValue]) -> dict[str, MetricValue]:
    """Stored records have their keys sorted; the first metric of deploy.yaml is the one the headline speaks of."""
    declared = []
    for metric in context.loaded.config.quality.metrics:
        named = metric if isinstance(metric, str) else getattr(metric, "name", "") or getattr(metric, "path", "")
        declared.append(named.rpartition(":")[2])
    places = {name: place for place, name in enumerate(declared)}
    return dict(sorted(metrics.items(), key=lambda item: places.get(item[0], len(places))))


def _refused(name: str, format: Any, refusal: Refusal, artifact: Artifact | None) -> CandidateReport:
    reason = f"{refusal.stage}: {refusal.reason}" + (f" ({refusal.hint})" if refusal.hint else "")
    return CandidateReport(
        recipe=name,
        format=format,
        path="",
        sha256="",
        size_bytes=artifact.size_bytes if artifact else 0,
        ops_total=0,
        ops_quantized={},
        ops_left_float=(),
        fidelity={},
        metrics={},
        targets={},
        verdict="refused",
        reason=reason,
        tools=artifact.tools if artifact else {},
        last_output=refusal.last_output,
    )


def _overall(targets: Mapping[str, TargetResult]) -> tuple[VerdictKind, str]:
    """The worst verdict over the targets, with the reasons of those that gave it."""
    kinds: tuple[VerdictKind, ...] = ("fail", "inconclusive")
    for verdict in kinds:
        reasons = {target: result.reason for target, result in targets.items() if result.verdict == verdict}
        if reasons:
            shown = set(reasons.values())
            text = shown.pop() if len(shown) == 1 else "; ".join(f"{t}: {r}" for t, r in reasons.items())
            return verdict, text
    return "pass", "within every budget"


def _target_result(measured: Measurement | Failed, verdict: Verdict) -> TargetResult:
    if isinstance(measured, Failed):
        absent = Absent(reason=measured.message)
        return TargetResult(
            load_ms=absent,
            first_ms=absent,
            warm_ms=absent,
            warm_samples_ms=(),
            fps=absent,
            peak_rss_bytes=absent,
            energy=absent,
            runtime="",
            answer=absent,
            verdict=verdict.verdict,
            reason=verdict.reason,
        )
    warm = summarize(measured.warm_ns)
    runtime = f"{measured.runtime} {measured.runtime_version}" + (f", {measured.delegate}" if measured.delegate else "")
    return TargetResult(
        load_ms=measured.load_ns / _NS_PER_MS,
        first_ms=measured.first_ns / _NS_PER_MS,
        warm_ms=warm,
        warm_samples_ms=tuple(sample / _NS_PER_MS for sample in measured.warm_ns),
        fps=1000 / warm.median,
        peak_rss_bytes=measured.peak_rss_bytes,
        energy=energy_per_inference(measured),
        runtime=runtime,
        answer=measured.answer,
        verdict=verdict.verdict,
        reason=verdict.reason,
        conditions={"threads": str(measured.threads), **measured.conditions},
    )


def _baseline(candidates: Sequence[CandidateReport], decision: Decision) -> str | None:
    """The float32 candidate of the chosen one's format, so that percentages compare like with like; else any."""
    floats = {c.format: c.recipe for c in candidates if c.recipe.endswith("-float32") and c.path}
    chosen = next((c for c in candidates if c.recipe == decision.chosen), None)
    if chosen and chosen.format in floats:
        return floats[chosen.format]
    return floats.get("tflite") or floats.get("onnx")


def _failed(record: object) -> Failed:
    if isinstance(record, Failed):
        return record
    return Failed(code="not-pushed", message=record.reason if isinstance(record, Refusal) else "not pushed")


def _with_pictures(context: Context, out: Path, report: Report) -> Report:
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


def _copy_models(context: Context, out: Path, report: Report) -> None:
    """Give every candidate its file under `models/`."""
    out.mkdir(parents=True, exist_ok=True)
    for candidate in report.candidates:
        if candidate.path:
            _place(context.store.path(candidate.sha256), out / candidate.path)


def _calibrations(context: Context, found: Mapping[Format, Ranges | Refusal]) -> dict[str, CalibrationReport]:
    return {
        format: CalibrationReport(
            path=_sketch_path(format),
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


def _sketch_path(format: str) -> str:
    return f"calibration/{format}.sketch"


def _copy_sketches(context: Context, out: Path, found: Mapping[Format, Ranges | Refusal]) -> None:
    """Give the observations a place beside the models: what later data is compared with and merged into."""
    for format, ranges in found.items():
        if isinstance(ranges, Ranges):
            _place(context.store.path(ranges.sketch), out / _sketch_path(format))


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


def _sweep(out: Path, report: Report) -> None:
    """Take away what an earlier run left and this report does not name; last, so that an interrupted run loses none."""
    wanted = {c.path for c in report.candidates} | {c.path for c in report.calibrations.values()}
    for candidate in report.candidates:
        for picture in candidate.pictures:
            wanted |= {picture.input, picture.reference, picture.candidate, picture.error_map, picture.truth}
    # Only names that we give: the folder may be one where the user keeps models and pictures too.
    ours = {"models": "|".join(map(re.escape, RECIPES)), "pictures": "[0-9a-f]{16}", "calibration": "tflite|onnx"}
    for folder, stems in ours.items():
        named = re.compile(rf"\.?(?:{stems})\.(?:tflite|onnx|png|sketch)(?:\.part)?")
        for file in (out / folder).iterdir() if (out / folder).is_dir() else ():
            if f"{folder}/{file.name}" not in wanted and named.fullmatch(file.name):
                file.unlink()
