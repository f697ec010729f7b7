"""What the report says of one candidate: records of several stages, put together. No decisions."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.fit.records import Fit
from pipeline.quality.energy import energy_per_inference
from pipeline.quality.statistics import summarize
from pipeline.recipes.grammar import float_of
from pipeline.recipes.recipe import promise, recipe
from pipeline.records import (
    Artifact,
    CandidateReport,
    Decision,
    Measured,
    MetricValue,
    Quality,
    Refusal,
    TargetResult,
    Verdict,
    VerdictKind,
)
from pipeline.stages.context import Context
from pipeline.stages.outcome import size_ratio
from pipeline.stages.rounds import latency_ratio, told
from targets.records import Absent, Failed, Measurement

_NS_PER_MS = 1e6


def candidate_report(
    context: Context,
    name: str,
    artifact: Artifact | Refusal,
    quality: Quality | Refusal,
    measured: Mapping[str, Measured | Refusal],
    decision: Decision,
    fits: Mapping[str, Fit],
) -> CandidateReport:
    format = recipe(name).format
    if isinstance(artifact, Refusal):
        return _refused(name, format, artifact, None)
    if isinstance(quality, Refusal):
        return _refused(name, format, quality, artifact)
    targets = {
        target: _fitted(
            name,
            _target_result(
                told(found, name),
                decision.verdicts[target][name],
                latency_ratio(name, float_of(name), found.results, found.rounds),
            ),
            fits.get(target),
        )
        for target, found in measured.items()
        if isinstance(found, Measured)
    }
    verdict, reason = _overall(targets)
    promised = promise(name)
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
        findings=(*artifact.notes, *quality.findings, *_told(fits)),
        pictures=quality.pictures,
        codes=tuple(dict.fromkeys(code for result in targets.values() for code in result.codes)),
        suggestion=next((result.suggestion for result in targets.values() if result.suggestion), ""),
        size_ratio=size_ratio(artifact),
        promised_size_ratio=promised.size,
        promised_latency_ratio=promised.latency,
        beside=artifact.beside,
    )


def lowered_path(name: str, format: str, digest: str) -> str:
    """Of a file that was lowered for a device; devices that need the same share it."""
    return f"models/{name}.lowered-{digest[:8]}.{format}"


def _fitted(name: str, result: TargetResult, fit: Fit | None) -> TargetResult:
    if fit is None:
        return result
    if fit.lowered is None:
        return replace(result, fit=fit.text)
    path = lowered_path(name, recipe(name).format, fit.lowered.blob)
    return replace(result, fit=fit.text, path=path, sha256=fit.lowered.blob)


def _told(fits: Mapping[str, Fit]) -> list[str]:
    """What devices had to say of the file that a passing verdict would not tell."""
    return [f"{target} ({fit.runtime}): {fit.text}" for target, fit in fits.items() if fit.answer != "fits"]


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
    return "pass", next((result.reason for result in targets.values() if result.codes), "within every budget")


def _target_result(measured: Measurement | Failed, verdict: Verdict, ratio: float | None) -> TargetResult:
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
            codes=verdict.codes,
            suggestion=verdict.suggestion,
        )
    warm = summarize(measured.warm_ns)
    energy = energy_per_inference(measured)
    runtime = f"{measured.runtime} {measured.runtime_version}" + (f", {measured.delegate}" if measured.delegate else "")
    return TargetResult(
        load_ms=measured.load_ns / _NS_PER_MS,
        first_ms=measured.first_ns / _NS_PER_MS,
        warm_ms=warm,
        warm_samples_ms=tuple(sample / _NS_PER_MS for sample in measured.warm_ns),
        fps=1000 / warm.median,
        peak_rss_bytes=measured.peak_rss_bytes,
        energy=energy if isinstance(energy, Absent) else energy.gross_j,
        energy_details=None if isinstance(energy, Absent) else energy,
        runtime=runtime,
        answer=measured.answer,
        verdict=verdict.verdict,
        reason=verdict.reason,
        conditions={"threads": str(measured.threads), **measured.conditions},
        codes=verdict.codes,
        suggestion=verdict.suggestion,
        latency_ratio=ratio,
    )
